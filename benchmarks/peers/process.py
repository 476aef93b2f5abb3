"""Processes that listen on a port: started, awaited and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

START_LIMIT_S = 90.0
STOP_LIMIT_S = 10.0
POLL_INTERVAL_S = 0.2


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def listening(
    *command: str,
    port: int,
    environment: Mapping[str, str] | None = None,
    log_file: Path = Path(os.devnull),
) -> AsyncIterator[int]:
    """The id of a process that listens on the port; it and its children end with the block.

    Raises:
        SystemExit: it ended before it listened.
        TimeoutError: it did not listen within START_LIMIT_S.
    """
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while not await _listens(port):
                if process.returncode is not None:
                    raise SystemExit(f"{command[0]} ended before it listened: see {log_file}")
                await asyncio.sleep(POLL_INTERVAL_S)
        yield process.pid
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a process, then whatever it left in its process group."""
    if process.returncode is None:
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _listens(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
