"""The health check of the images tells a server that serves from one that drains or is gone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.mesh.server import MeshServer

HEALTHCHECK = Path(__file__).resolve().parents[2] / "deploy" / "docker" / "healthcheck.py"


async def exit_code(address: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, HEALTHCHECK, address)
    return await process.wait()


async def test_the_exit_code_is_the_health_of_the_server() -> None:
    server = MeshServer("127.0.0.1", 0)
    await server.start(())
    assert await exit_code(server.address) == 0
    await server.drain()
    assert await exit_code(server.address) == 1
    await server.stop(0)
    assert await exit_code(server.address) == 1
