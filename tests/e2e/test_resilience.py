"""What clients of a whole mesh see while parts of it die and come back: nothing, if possible."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.mesh.process import ReadyNotice
from tests.e2e.processes import Process, running_envoy, running_service, wait_for

MODEL = "scripted"
# Slow enough that streams are running when something dies.
TOKEN_INTERVAL_MS = 10
STREAM_TOKENS = 100
REQUEST_LIMIT_S = 90.0


@dataclass
class Parts:
    """A mesh of which each process can be ended."""

    base_url: str
    controller: Process
    controller_address: str
    workers: list[tuple[Process, ReadyNotice]]


def worker_options(controller_address: str, number: int) -> tuple[str, ...]:
    return (
        *("--engine", "scripted", "--controller", controller_address),
        *("--worker-id", f"worker-{number}", "--max-running", "256"),
        *("--scripted-token-interval-ms", str(TOKEN_INTERVAL_MS)),
    )


@pytest.fixture
def parts(folder: Path) -> Iterator[Parts]:
    with ExitStack() as stack:
        controller, at = stack.enter_context(running_service(folder, "controller"))
        workers = [
            stack.enter_context(
                running_service(
                    folder, "worker", *worker_options(at.address, number), name=f"worker-{number}"
                )
            )
            for number in (1, 2)
        ]
        _, gateway = stack.enter_context(
            running_service(folder, "gateway", "--controller", at.address)
        )
        edge = stack.enter_context(running_envoy(folder, gateway.address))
        base_url = f"http://127.0.0.1:{edge.listen_port}/v1"
        wait_for("the model was served", lambda: serves_model(base_url))
        yield Parts(base_url, controller, at.address, workers)


def serves_model(base_url: str) -> bool:
    answer = httpx.get(f"{base_url}/models")
    return answer.is_success and bool(answer.json()["data"])


def body(*, stream: bool, tokens: int) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell me a story"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "seed": 7,
        "stream": stream,
    }


async def ask(client: httpx.AsyncClient, tokens: int = 1) -> str:
    answer = await client.post("chat/completions", json=body(stream=False, tokens=tokens))
    return "ok" if answer.is_success else f"{answer.status_code}: {answer.text}"


async def stream(
    client: httpx.AsyncClient, begun: Counter[str] | None = None, tokens: int = STREAM_TOKENS
) -> list[str]:
    """The events of one stream. Its first is counted in `begun`."""
    asked = body(stream=True, tokens=tokens)
    async with client.stream("POST", "chat/completions", json=asked) as answer:
        assert answer.is_success, (await answer.aread()).decode()
        lines: list[str] = []
        async for line in answer.aiter_lines():
            if line and not lines and begun is not None:
                begun["streams"] += 1
            if line:
                lines.append(line.removeprefix("data: "))
        return lines


@contextlib.asynccontextmanager
async def steady_requests(
    client: httpx.AsyncClient, *, tokens: int = 1
) -> AsyncIterator[Counter[str]]:
    """Eight clients that ask one question after another for as long as the block runs."""
    outcomes: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def one_client() -> None:
        while not is_over.is_set():
            outcomes[await ask(client, tokens)] += 1

    async with asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(one_client())
        try:
            yield outcomes
        finally:
            is_over.set()


def open_client(parts: Parts) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=parts.base_url, timeout=REQUEST_LIMIT_S, limits=limits)


async def until_more(outcomes: Counter[str], count: int) -> None:
    """Waits until so many more have been counted."""
    goal = outcomes.total() + count
    async with asyncio.timeout(REQUEST_LIMIT_S):
        while outcomes.total() < goal:
            await asyncio.sleep(0.02)


async def test_a_controller_restart_under_load_fails_no_request(parts: Parts, folder: Path) -> None:
    async with open_client(parts) as client, steady_requests(client) as outcomes:
        await until_more(outcomes, 50)
        parts.controller.send(signal.SIGKILL)
        await asyncio.to_thread(parts.controller.wait)
        await until_more(outcomes, 100)
        port = parts.controller_address.rpartition(":")[2]
        # The last --port counts.
        with running_service(folder, "controller", "--port", port, name="second") as (second, _):
            await asyncio.to_thread(
                second.until,
                "both workers were attached again",
                lambda: second.log().count("lease granted") >= 2,
            )
            await until_more(outcomes, 100)
    assert set(outcomes) == {"ok"}


async def test_streams_of_a_killed_worker_go_on_as_if_nothing_had_happened(parts: Parts) -> None:
    async with open_client(parts) as client:
        undisturbed = text_of_stream(await stream(client))
        begun: Counter[str] = Counter()
        async with asyncio.TaskGroup() as tasks:
            streams = [tasks.create_task(stream(client, begun)) for _ in range(20)]
            await until_more(begun, 20)
            parts.workers[0][0].send(signal.SIGKILL)
        lines = [each.result() for each in streams]
    assert [each[-1] for each in lines] == ["[DONE]"] * 20
    assert {text_of_stream(each) for each in lines} == {undisturbed}
    assert all(len({json.loads(line)["id"] for line in each[:-1]}) == 1 for each in lines)


async def test_a_killed_worker_costs_no_answer_that_is_sent_whole(parts: Parts) -> None:
    async with open_client(parts) as client, steady_requests(client, tokens=50) as outcomes:
        await until_more(outcomes, 20)
        parts.workers[0][0].send(signal.SIGKILL)
        await until_more(outcomes, 40)
    assert set(outcomes) == {"ok"}


async def test_a_worker_that_drains_ends_before_its_streams(parts: Parts) -> None:
    async with open_client(parts) as client, steady_requests(client) as outcomes:
        begun: Counter[str] = Counter()
        async with asyncio.TaskGroup() as tasks:
            streams = [
                tasks.create_task(stream(client, begun, tokens=6 * STREAM_TOKENS))
                for _ in range(20)
            ]
            await until_more(begun, 20)
            parts.workers[0][0].send(signal.SIGTERM)
            assert await asyncio.to_thread(parts.workers[0][0].wait) == 0
            assert not any(each.done() for each in streams)
        await until_more(outcomes, 50)
    assert all(each.result()[-1] == "[DONE]" for each in streams)
    assert len({text_of_stream(each.result()) for each in streams}) == 1
    assert set(outcomes) == {"ok"}


async def test_two_hundred_streams_at_once_are_whole_and_equal(parts: Parts) -> None:
    async with open_client(parts) as client, asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(stream(client)) for _ in range(200)]
    results = [each.result() for each in streams]
    assert all(each[-1] == "[DONE]" for each in results)
    assert len({text_of_stream(each) for each in results}) == 1, (
        "equal requests with one seed give equal answers on both workers"
    )


def text_of_stream(lines: list[str]) -> str:
    """The whole answer of a stream that ended in [DONE]."""
    chunks = [json.loads(line) for line in lines[:-1]]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
