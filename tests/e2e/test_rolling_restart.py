"""Every worker, gateway and controller restarts in turn, under load, and no client notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.faults import Fault, FaultKind, Service
from tests.chaos.layout import SCRIPTED_MODEL, Layout
from tests.chaos.mesh import Mesh, running
from tests.e2e.test_resilience import text_of_stream

CLIENTS = 8
STREAM_TOKENS = 100
LIMIT_S = 60.0


def body(*, stream: bool) -> dict[str, object]:
    return {
        "model": SCRIPTED_MODEL,
        "messages": [{"role": "user", "content": "Tell me a story"}],
        "max_tokens": STREAM_TOKENS,
        "seed": 7,
        "stream": stream,
    }


async def answer(client: httpx.AsyncClient, *, stream: bool) -> str:
    """The text of an answer, or what went wrong."""
    try:
        response = await client.post("chat/completions", json=body(stream=stream))
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    if not response.is_success:
        return f"{response.status_code}: {response.text}"
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return text_of_stream(lines) if lines[-1] == "[DONE]" else lines[-1]


@contextlib.asynccontextmanager
async def steady_clients(client: httpx.AsyncClient) -> AsyncIterator[Counter[str]]:
    """Clients that ask one question after another for as long as the block runs."""
    outcomes: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def one_client(*, stream: bool) -> None:
        while not is_over.is_set():
            outcomes[await answer(client, stream=stream)] += 1

    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(one_client(stream=number % 4 > 0))
        try:
            yield outcomes
        finally:
            is_over.set()


@pytest.mark.slow
async def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    layout = Layout(scripted_workers=2, token_interval_ms=10.0, prefill_ms=5.0)
    async with (
        running(layout, tmp_path, wants_cuts=False) as mesh,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{mesh.port}/v1", timeout=LIMIT_S) as client,
    ):
        undisturbed = await answer(client, stream=True)
        async with steady_clients(client) as outcomes:
            # Gateways first: a new one counts anew.
            for name in sorted(mesh.parts, key=lambda name: not name.startswith("gateway")):
                await mesh.suffer(Fault(0.0, FaultKind.RESTART, name, 0.0))
        assert set(outcomes) == {undisturbed}, outcomes
        assert resumes(mesh) > 0


def resumes(mesh: Mesh) -> float:
    """How often an answer has changed workers, as the gateways count that are there."""
    return sum(
        float(line.rpartition(" ")[2])
        for text in mesh.metrics(Service.GATEWAY).values()
        for line in text.splitlines()
        if line.startswith("tokenmesh_gateway_resumes_total{")
    )
