"""A real gateway before real workers with the scripted engine, which a real controller knows."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.mesh.channels import open_channel
from services.mesh.process import read_ready
from services.worker.engines import create
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import DEFAULT_MODEL_NAME, ScriptedSettings
from services.worker.server import RunningWorker
from services.worker.server import running as running_worker
from services.worker.settings import WorkerSettings
from tests.fakes.gateway_mesh import (
    Client,
    chat_request,
    controller,
    error_of,
    eventually,
    gateway,
)
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc
from tokenmesh.gateway.v1 import chat_pb2, model_pb2
from tokenmesh.mesh.v1 import generation_pb2

SLOW = Pace(token_interval_s=0.05)
LONG_PREFILL = Pace(prefill_s=60.0)


@asynccontextmanager
async def worker(
    address: str, name: str = "w", pace: Pace | None = None, **settings: Any
) -> AsyncIterator[RunningWorker]:
    """A worker that attaches to a controller."""
    scripted = ScriptedSettings(pace=pace or Pace(), **settings)
    engine = create("scripted", scripted)
    await engine.start()
    worker_settings = WorkerSettings(
        engine=scripted, port=0, controllers=(address,), worker_id=name, grace_period_s=0.0
    )
    async with running_worker(worker_settings, engine, CollectorRegistry()) as running:
        yield running


def request(text: str = "Hi", **sampling: Any) -> chat_pb2.ChatRequest:
    return chat_request(text, model=DEFAULT_MODEL_NAME, **sampling)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as address:
        yield address


async def ready(client: Client, workers: int) -> None:
    await client.wait_served(workers, DEFAULT_MODEL_NAME)


async def test_a_seed_gives_the_same_answer_on_every_worker(address: str) -> None:
    async with (
        worker(address, "a"),
        worker(address, "b"),
        gateway(address, routing_policy="round_robin") as client,
    ):
        await ready(client, 2)
        answers = {await client.answer(request(seed=7)) for _ in range(4)}
        assert len(answers) == 1
        assert answers.pop()
        assert client.metric(
            "tokenmesh_gateway_routing_choices_total", policy="round_robin", worker="a"
        ) == client.metric(
            "tokenmesh_gateway_routing_choices_total", policy="round_robin", worker="b"
        )


async def test_two_hundred_streams_each_get_their_own_answer(address: str) -> None:
    async with worker(address, "a"), worker(address, "b"), gateway(address) as client:
        await ready(client, 2)
        requests = [request(f"Number {n % 20}", seed=n % 20, max_tokens=40) for n in range(200)]
        alone = [await client.answer(each) for each in requests[:20]]
        assert len(set(alone)) > 10
        together = await asyncio.gather(*(client.answer(each) for each in requests))
        assert together == alone * 10
        labels = {"model": DEFAULT_MODEL_NAME}
        assert client.metric("tokenmesh_gateway_requests_running", **labels) == 0
        assert (
            client.metric("tokenmesh_gateway_tokens_total", kind="completion", **labels) == 220 * 40
        )
        counted = client.metric(
            "tokenmesh_gateway_requests_total",
            operation="chat",
            code="OK",
            finish_reason="length",
            **labels,
        )
        assert counted == 220


async def test_usage_and_choices(address: str) -> None:
    async with worker(address), gateway(address) as client:
        await ready(client, 1)
        responses = [r async for r in client.chat.Chat(request(choices=3, max_tokens=5, seed=1))]
    assert responses[-1].completed.usage.completion_tokens == 15
    assert responses[-1].completed.usage.prompt_tokens == responses[0].started.prompt_tokens
    finishes = [r for r in responses if r.HasField("finished")]
    assert sorted(finish.choice_index for finish in finishes) == [0, 1, 2]
    assert {f.finished.reason for f in finishes} == {generation_pb2.FINISH_REASON_LENGTH}


async def test_a_client_that_leaves_frees_the_engine(address: str) -> None:
    async with worker(address, pace=SLOW) as running, gateway(address) as client:
        await ready(client, 1)
        calls = [client.chat.Chat(request(max_tokens=1000)) for _ in range(5)]
        await eventually(lambda: running.engine.load().running == 5)
        for call in calls:
            call.cancel()
        await eventually(lambda: running.engine.load().running == 0)


async def test_a_deadline_that_passes_before_the_first_token(address: str) -> None:
    async with worker(address, pace=LONG_PREFILL) as running, gateway(address) as client:
        await ready(client, 1)
        error = await error_of(
            client.chat.Chat(request(), metadata=(("x-request-timeout", "0.3"),))
        )
        assert error.code == "DEADLINE_EXCEEDED"
        await eventually(lambda: running.engine.load().running + running.engine.load().waiting == 0)


async def test_a_worker_that_stops_before_the_first_token_goes_unnoticed(address: str) -> None:
    async with AsyncExitStack() as stopping:
        slow = await stopping.enter_async_context(worker(address, "a", LONG_PREFILL))
        async with gateway(address) as client:
            await ready(client, 1)
            answer = asyncio.create_task(client.answer(request(max_tokens=5)))
            await eventually(lambda: slow.engine.load().waiting + slow.engine.load().running > 0)
            async with worker(address, "b"):
                await ready(client, 2)
                await stopping.aclose()
                assert await answer


async def test_a_full_queue_sends_requests_to_the_other_worker(address: str) -> None:
    async with (
        worker(address, "a", SLOW, max_running=1, max_waiting=0) as a,
        worker(address, "b", SLOW, max_running=1, max_waiting=0) as b,
        gateway(address, routing_policy="lottery") as client,
    ):
        await ready(client, 2)
        calls = [client.chat.Chat(request(max_tokens=1000)) for _ in range(2)]
        answers = [asyncio.create_task(error_of(call)) for call in calls]
        await eventually(lambda: a.engine.load().running == b.engine.load().running == 1)
        error = await error_of(client.chat.Chat(request()))
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert error.retry_after_s is not None
        for call in calls:
            call.cancel()
        await asyncio.gather(*answers, return_exceptions=True)


async def test_draining_by_an_operator(address: str) -> None:
    async with (
        worker(address, "a") as a,
        worker(address, "b") as b,
        gateway(address) as client,
        open_channel(address) as channel,
    ):
        await ready(client, 2)
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        await admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="a"))
        await ready(client, 1)
        before = a.engine.load().generated_tokens
        assert all([await client.answer(request(max_tokens=3)) for _ in range(5)])
        assert a.engine.load().generated_tokens == before
        assert b.engine.load().generated_tokens == 15
        await admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="a"))
        await ready(client, 2)


async def test_tokens_of_a_text_and_of_a_conversation(address: str) -> None:
    async with worker(address), gateway(address) as client:
        await ready(client, 1)
        prompt = request("Hello there").prompt
        tokens = await client.models.Tokenize(
            model_pb2.TokenizeRequest(model=DEFAULT_MODEL_NAME, chat=prompt)
        )
        count = await client.models.CountTokens(
            model_pb2.CountTokensRequest(model=DEFAULT_MODEL_NAME, chat=prompt)
        )
        assert count.prompt_tokens == len(tokens.token_ids) > 0
        responses = [r async for r in client.chat.Chat(request("Hello there", max_tokens=1))]
        assert responses[0].started.prompt_tokens == count.prompt_tokens
        text = await client.models.Tokenize(
            model_pb2.TokenizeRequest(model=DEFAULT_MODEL_NAME, text="Hello there")
        )
        back = await client.models.Detokenize(
            model_pb2.DetokenizeRequest(model=DEFAULT_MODEL_NAME, token_ids=text.token_ids)
        )
        assert back.text == "Hello there"


async def test_a_killed_process_is_noticed_and_replaced(address: str, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.worker", "--engine", "scripted", "--port", "0"),
        *("--controller", address, "--worker-id", "mortal", "--ready-file", str(ready_file)),
        *("--scripted-prefill-ms", "60000", "--log-level", "error"),
    )
    try:
        await eventually(lambda: read_ready(ready_file) is not None)
        async with gateway(address) as client:
            await ready(client, 1)
            answers = [asyncio.create_task(client.answer(request(max_tokens=5))) for _ in range(8)]
            running = {"model": DEFAULT_MODEL_NAME}
            await eventually(
                lambda: client.metric("tokenmesh_gateway_requests_running", **running) == 8
            )
            async with worker(address, "b"):
                await ready(client, 2)
                process.send_signal(signal.SIGKILL)
                assert all(await asyncio.gather(*answers))
                await ready(client, 1)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
