"""Exits with 0 if the gRPC server at the given address says that it serves, else with 1.

python healthcheck.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys

from services.mesh.channels import open_channel
from services.mesh.server import is_serving

LIMIT_S = 3.0


async def check(address: str) -> bool:
    """Whether the server serves."""
    async with open_channel(address) as channel:
        return await is_serving(channel, LIMIT_S)


if __name__ == "__main__":
    _, address = sys.argv
    sys.exit(0 if asyncio.run(check(address)) else 1)
