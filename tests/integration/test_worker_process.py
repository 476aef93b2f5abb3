"""The worker as a process: its ready file, its signals, and what stops its start."""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.mesh.channels import open_channel
from services.mesh.process import ReadyNotice, read_ready
from services.mesh.server import MeshServer, is_serving
from services.worker import engines
from services.worker.engines.base import StepOutput
from services.worker.engines.scripted import ScriptedEngine, ScriptedSettings
from services.worker.server import serve
from services.worker.settings import WorkerSettings
from tests.fakes.generate_client import LIMIT_S, GenerateClient

SCRIPTED = ("--engine", "scripted", "--no-register", "--port", "0", "--log-format", "json")
SLOW = ("--scripted-token-interval-ms", "10", "--scripted-answer-tokens", "0")


async def start(*options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.worker", *options, stdout=PIPE, stderr=PIPE
    )


@asynccontextmanager
async def started(tmp_path: Path, *options: str) -> AsyncIterator[tuple[Process, ReadyNotice]]:
    """A worker process that serves; killed if it still runs at the end."""
    ready_file = tmp_path / "ready.json"
    process = await start(*SCRIPTED, "--ready-file", str(ready_file), *options)
    try:
        async with asyncio.timeout(LIMIT_S):
            while (notice := read_ready(ready_file)) is None:
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield process, notice
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: Process) -> tuple[int, str]:
    """The exit status, and what was said on standard error."""
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
async def test_a_signal_drains_and_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    async with started(tmp_path, *SLOW) as (process, notice), open_channel(notice.address) as way:
        assert await is_serving(way, LIMIT_S)
        assert (notice.service, notice.process_id) == ("worker", process.pid)
        scraped = await asyncio.to_thread(scrape, notice.metrics_address)
        assert "tokenmesh_worker_requests_running 0.0" in scraped
        assert 'tokenmesh_build_info{protocol="1"' in scraped
        async with GenerateClient(way) as stream:
            await stream.start(1, sampling={"max_tokens": 100})
            await stream.read_tokens(1, 1)
            process.send_signal(number)
            await asyncio.wait_for(until_not_serving(notice), LIMIT_S)
            await stream.start(2)
            await stream.read_until_ended(2, 1)
            assert stream.error(2).reason == "NO_WORKER"
            assert stream.ends(1)[0].HasField("finished")
            assert len(stream.token_ids(1)) == 100
        status, said = await ended(process)
    assert status == 0
    assert "Traceback" not in said
    assert "never retrieved" not in said


async def test_the_grace_period_bounds_the_drain(tmp_path: Path) -> None:
    options = (*SLOW, "--grace-period", "0.1")
    async with (
        started(tmp_path, *options) as (process, notice),
        open_channel(notice.address) as way,
    ):
        stream = GenerateClient(way)
        await stream.start(1, sampling={"max_tokens": 20_000})
        await stream.read_tokens(1, 1)
        process.terminate()
        await stream.read_until_ended(1)
        assert stream.error(1).code == "UNAVAILABLE"
        status, _ = await ended(process)
    assert status == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with started(tmp_path, *SLOW) as (process, notice), open_channel(notice.address) as way:
        stream = GenerateClient(way)
        await stream.start(1, sampling={"max_tokens": 20_000})
        await stream.read_tokens(1, 1)
        process.terminate()
        await asyncio.wait_for(until_not_serving(notice), LIMIT_S)
        process.terminate()
        status, _ = await ended(process)
    assert status == -signal.SIGTERM


async def until_not_serving(notice: ReadyNotice) -> None:
    async with open_channel(notice.address) as channel:
        while await is_serving(channel, LIMIT_S):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--model-path is missing"),
        (("--engine", "scripted", "--speed", "0"), "--speed is 0"),
    ],
)
async def test_what_stops_the_start_is_one_line(options: tuple[str, ...], says: str) -> None:
    status, said = await ended(await start("--log-level", "error", *options))
    assert status == 2
    assert says in said
    assert said.count("\n") == 1


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    taken = MeshServer("127.0.0.1", 0)
    await taken.start(())
    try:
        status, said = await ended(
            await start(*SCRIPTED, "--port", str(taken.port), "--log-level", "error")
        )
    finally:
        await taken.stop(0)
    assert status == 2
    assert f"127.0.0.1:{taken.port}" in said
    assert said.count("\n") == 1


class BrokenEngine(ScriptedEngine):
    """Breaks down in its first step."""

    async def steps(self) -> AsyncIterator[StepOutput]:
        while not self.load().running:
            await asyncio.sleep(0.01)
        raise ZeroDivisionError("the accelerator fell off")
        yield


class HungEngine(ScriptedEngine):
    """Never comes back from its third step."""

    async def steps(self) -> AsyncIterator[StepOutput]:
        async for step in super().steps():
            if step.step == 3:
                await asyncio.Event().wait()
            yield step


@pytest.mark.parametrize(
    ("engine", "says"),
    [(BrokenEngine, "the accelerator fell off"), (HungEngine, "hangs in a step for 0.5 s")],
)
async def test_an_engine_that_breaks_down_ends_the_worker(
    engine: type[ScriptedEngine], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "create", lambda name, settings: engine(settings))
    ready_file = tmp_path / "ready.json"
    settings = WorkerSettings(
        ScriptedSettings(), port=0, controllers=(), ready_file=ready_file, hung_step_s=0.5
    )
    serving = asyncio.create_task(end_of(serve(settings, asyncio.Event(), CollectorRegistry())))
    async with asyncio.timeout(LIMIT_S):
        while (notice := read_ready(ready_file)) is None:
            await asyncio.sleep(0.02)
    async with open_channel(notice.address) as way, GenerateClient(way) as stream:
        await stream.start(1)
        await stream.read_until_ended(1)
        # Gateways go on elsewhere.
        assert stream.error(1).reason == "WORKER_LOST"
        assert "accelerator" not in stream.error(1).message
    async with asyncio.timeout(LIMIT_S):
        error = await serving
    assert isinstance(error, SystemExit)
    assert "scripted engine broke down" in str(error)
    assert says in str(error)


async def end_of(serving: Awaitable[None]) -> BaseException | None:
    """What ended it. A task may not end with SystemExit: that would end the tests."""
    try:
        await serving
    except SystemExit as error:
        return error
    return None


def scrape(address: str) -> str:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=LIMIT_S) as answer:
        return str(answer.read().decode())
