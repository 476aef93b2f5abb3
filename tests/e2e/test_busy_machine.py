"""A worker on a machine whose every core is busy is not taken for hung; one that is stopped is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.worker.engines.scripted.settings import DEFAULT_MODEL_NAME
from tests.e2e.processes import running_service
from tests.fakes.gateway_mesh import Client, chat_request, eventually, gateway

BUSY_PROCESSES_PER_CORE = 4
STREAMS = 8
# Slower than the looks at a worker: every token comes after a silence in which the worker is asked.
TOKEN_INTERVAL_MS = 1000
TOKENS = 4


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Processes that compute without a pause, several for each core."""
    count = BUSY_PROCESSES_PER_CORE * (os.cpu_count() or 1)
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: sum(range(10_000))"])
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
        for each in busy:
            each.wait()


@pytest.mark.slow
async def test_busy_is_not_hung_and_stopped_is(folder: Path) -> None:
    with ExitStack() as stack:
        _, at = stack.enter_context(running_service(folder, "controller"))
        workers = [
            stack.enter_context(running_service(folder, "worker", *options(at.address), name=name))
            for name in ("a", "b")
        ]
        async with gateway(at.address, resume_wait_s=30.0) as client:
            await client.wait_served(2, DEFAULT_MODEL_NAME)
            request = chat_request(model=DEFAULT_MODEL_NAME, seed=1, max_tokens=TOKENS)
            with busy_cores():
                answers = await asyncio.gather(*(client.answer(request) for _ in range(STREAMS)))
            assert len(set(answers)) == 1
            assert losses(client) == (0, 0)
            running = [asyncio.create_task(client.answer(request)) for _ in range(STREAMS)]
            labels = {"model": DEFAULT_MODEL_NAME}
            await eventually(
                lambda: client.metric("tokenmesh_gateway_requests_running", **labels) == STREAMS
            )
            stopped, _ = workers[0]
            stopped.send(signal.SIGSTOP)
            try:
                assert set(await asyncio.gather(*running)) == set(answers)
            finally:
                stopped.send(signal.SIGCONT)
            assert losses(client) == (0, 1)


def options(controller_address: str) -> tuple[str, ...]:
    return (
        *("--engine", "scripted", "--controller", controller_address),
        *("--scripted-answer-tokens", "0"),
        *("--scripted-token-interval-ms", str(TOKEN_INTERVAL_MS)),
    )


def losses(client: Client) -> tuple[float, float]:
    """How many workers were lost: by their connection, and by their silence."""
    name = "tokenmesh_gateway_worker_losses_total"
    return client.metric(name, cause="WORKER_LOST"), client.metric(name, cause="WORKER_HUNG")
