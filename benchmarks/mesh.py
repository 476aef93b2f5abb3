"""A mesh to measure: what `tokenmesh up` starts."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.up.notice import MeshNotice, read_notice

READY_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0
POLL_INTERVAL_S = 0.05
SCRIPTED = ("--engine", "scripted")


class MeshStartError(Exception):
    """The mesh did not start. The message is what it printed."""


async def _until_ready(process: asyncio.subprocess.Process, ready_file: Path) -> MeshNotice:
    while (notice := read_notice(ready_file)) is None:
        if process.returncode is not None:
            assert process.stdout is not None
            raise MeshStartError((await process.stdout.read()).decode())
        await asyncio.sleep(POLL_INTERVAL_S)
    return notice


@asynccontextmanager
async def running(
    worker_options: Sequence[str],
    *,
    up_options: Sequence[str] = SCRIPTED,
    workers: int = 1,
    checkout: Path | None = None,
) -> AsyncIterator[MeshNotice]:
    """A mesh, ready; it ends with the block. Without `up_options`, with the scripted engine.

    Args:
        checkout: runs the code of this one in place of the code that measures.

    Raises:
        MeshStartError: it did not start.
    """
    environment = dict(os.environ)
    if checkout is not None:
        environment["PYTHONPATH"] = f"{checkout}{os.pathsep}{checkout / 'gen'}"
    with tempfile.TemporaryDirectory(prefix="tokenmesh-bench-") as folder:
        ready_file = Path(folder, "ready.json")
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "services.cli.main",
                "up",
                *up_options,
                "--port",
                "0",
            ),
            *("--run-dir", folder, "--ready-file", str(ready_file), "--log-level", "warning"),
            *("--workers", str(workers)),
            *("--", *worker_options),
            cwd=checkout,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                notice = await _until_ready(process, ready_file)
            yield notice
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.communicate()
