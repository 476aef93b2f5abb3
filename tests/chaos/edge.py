"""Real Envoy before all gateways."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import yaml

from services.cli.up import envoy
from services.cli.up.preflight import claim_port
from tests.chaos.places import LOOPBACK, Place
from tests.chaos.processes import PartProcess
from tests.e2e.processes import answers_200

SERVED_LIMIT_S = 60.0


async def start_envoy(
    stack: AsyncExitStack, folder: Path, gateways: Sequence[Place]
) -> tuple[envoy.EnvoySettings, int]:
    """The stock configuration, with the address of every gateway where a name would resolve to
    them.
    """
    edge = envoy.EnvoySettings(
        listen_host=LOOPBACK,
        listen_port=claim_port(LOOPBACK, 0),
        gateway_host=gateways[0].host,
        gateway_port=gateways[0].port,
        admin_port=claim_port(LOOPBACK, 0),
        metrics_port=claim_port(LOOPBACK, 0),
        access_log_path=folder / "access.log",
        threads=1,
    )
    configuration = yaml.safe_load(envoy.configuration(edge))
    clusters = configuration["static_resources"]["clusters"]
    (cluster,) = (each for each in clusters if each["name"] == "gateways")
    (locality,) = cluster["load_assignment"]["endpoints"]
    locality["lb_endpoints"] = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": place.host, "port_value": place.port}}
            }
        }
        for place in gateways
    ]
    file = folder / "envoy.yaml"
    file.write_text(json.dumps(configuration))
    process = PartProcess("envoy", folder, lambda _: envoy.command(edge, file), _raise_assertion)
    await process.start()
    stack.push_async_callback(process.end)
    ready_url = f"http://{LOOPBACK}:{edge.admin_port}/ready"
    async with asyncio.timeout(SERVED_LIMIT_S):
        while not await asyncio.to_thread(answers_200, ready_url):
            await asyncio.sleep(0.1)
    return edge, process.life.process.pid


def _raise_assertion(what: str) -> None:
    raise AssertionError(what)


async def until_served(port: int, models: set[str]) -> None:
    """Waits until clients are told of all models, by whichever gateway they ask."""

    def served() -> set[str]:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/v1/models") as answer:
                return {model["id"] for model in json.load(answer)["data"]}
        except OSError:
            return set()

    async with asyncio.timeout(SERVED_LIMIT_S):
        in_a_row = 0
        while in_a_row < 10:
            in_a_row = in_a_row + 1 if await asyncio.to_thread(served) >= models else 0
            await asyncio.sleep(0.02)
