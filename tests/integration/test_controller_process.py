"""The controller as a process: its ready file, its signals, and what stops its start."""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.request
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from services.mesh.channels import open_channel
from services.mesh.process import ReadyNotice, read_ready
from tests.fakes.controller_peers import LIMIT_S, AttachPeer, WatchPeer, hello, reachable_address


async def start(*options: str, env: dict[str, str] | None = None) -> Process:
    """A controller process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.controller", *options, stdout=PIPE, stderr=PIPE, env=env
    )


async def ready(process: Process, ready_file: Path) -> ReadyNotice:
    """Waits until the process serves."""
    async with asyncio.timeout(LIMIT_S):
        while (notice := read_ready(ready_file)) is None:
            assert process.returncode is None
            await asyncio.sleep(0.02)
    return notice


async def ended(process: Process) -> tuple[int, str]:
    """The exit status, and what was said on standard error."""
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
async def test_a_signal_ends_it_cleanly_with_peers_attached(
    number: signal.Signals, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    process = await start("--port", "0", "--ready-file", str(ready_file), "--log-format", "json")
    notice = await ready(process, ready_file)
    assert notice.process_id == process.pid
    assert notice.service == "controller"
    async with open_channel(notice.address) as channel, reachable_address() as address:
        worker, gateway = AttachPeer(channel), WatchPeer(channel)
        await worker.attach(hello(address))
        await gateway.subscribe()
        scraped = await asyncio.to_thread(scrape, notice.metrics_address)
        assert 'tokenmesh_controller_lease_events_total{event="granted"} 1.0' in scraped
        assert 'tokenmesh_build_info{protocol="1"' in scraped
        process.send_signal(number)
        for peer in (worker, gateway):
            error = await peer.failure()
            assert (error.code, error.reason) == ("UNAVAILABLE", "CONTROLLER_STOPPING")
        status, said = await ended(process)
    assert status == 0
    assert "Traceback" not in said
    assert "never retrieved" not in said


def scrape(address: str) -> str:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=LIMIT_S) as answer:
        text: str = answer.read().decode()
    return text


async def test_a_value_that_cannot_be_stops_the_start() -> None:
    status, said = await ended(await start("--port", "0", "--lease-ttl", "3"))
    assert status == 2
    assert "--lease-ttl" in said
    assert len(said.strip().splitlines()) == 1


async def test_a_taken_port_stops_the_start() -> None:
    async with reachable_address() as address:
        port = address.rpartition(":")[2]
        status, said = await ended(await start("--port", port, "--log-level", "error"))
    assert status == 2
    assert f"127.0.0.1:{port}" in said
    assert len(said.strip().splitlines()) == 1
