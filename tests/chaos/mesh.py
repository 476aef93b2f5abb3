"""The mesh under fire: every service several times, real Envoy in front, all of it processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from services.cli.up import envoy
from services.cli.up.preflight import DEMO_MODEL_NAME, claim_port
from tests.chaos.faults import Fault, FaultKind, Part, Service
from tests.chaos.places import LOOPBACK, NamespacesUnavailableError, Place, loopback, namespaces
from tests.chaos.processes import PartProcess
from tests.e2e.processes import answers_200

SCRIPTED_MODEL = "scripted"
DEMO_MODEL = DEMO_MODEL_NAME
DEMO_CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "demo_model" / "model"
SERVICE_PORT = 21000
SERVED_LIMIT_S = 60.0
GRACE_PERIOD_S = 30.0
# How long after it is back the others count on it: Envoy asks a gateway that was gone each second.
SEEN_S = 3.0


@dataclass(frozen=True)
class Layout:
    """How many of what."""

    controllers: int = 2
    gateways: int = 2
    scripted_workers: int = 3
    demo_workers: int = 0
    token_interval_ms: float = 50.0
    prefill_ms: float = 20.0

    def parts(self) -> list[Part]:
        """All that faults may hit."""
        return [
            *(
                Part(f"controller-{n}", Service.CONTROLLER, "controllers")
                for n in _to(self.controllers)
            ),
            *(
                Part(f"scripted-{n}", Service.WORKER, SCRIPTED_MODEL)
                for n in _to(self.scripted_workers)
            ),
            *(Part(f"demo-{n}", Service.WORKER, DEMO_MODEL) for n in _to(self.demo_workers)),
            *(Part(f"gateway-{n}", Service.GATEWAY, "gateways") for n in _to(self.gateways)),
        ]


def _to(count: int) -> range:
    return range(1, count + 1)


@dataclass
class Suffered:
    """A fault that happened. Times are in seconds of the monotonic clock."""

    fault: Fault
    service: Service
    address: str
    began_s: float
    back_s: float | None = None
    """When it was ready again, or heard again."""


@dataclass
class Mesh:
    """A mesh that serves."""

    port: int
    parts: dict[str, Part]
    places: dict[str, Place]
    processes: dict[str, PartProcess]
    envoy_process_id: int
    access_log: Path
    can_cut: bool
    why_not_cut: str
    complaints: list[str]
    """What processes did that nobody asked them to."""
    suffered: list[Suffered] = field(default_factory=list)

    async def suffer(self, fault: Fault) -> None:
        """Has a fault happen, and returns once the process is back.

        On a busy machine processes come back later than the schedule counts on: then the fault of a
        worker or a gateway waits until another is there to stand in.

        Raises:
            AssertionError: it does not come back.
        """
        process, place = self.processes[fault.part], self.places[fault.part]
        service = self.parts[fault.part].service
        while service is not Service.CONTROLLER and not self._can_spare(self.parts[fault.part]):
            await asyncio.sleep(0.1)
        entry = Suffered(fault, service, place.address, time.monotonic())
        self.suffered.append(entry)
        match fault.kind:
            case FaultKind.KILL:
                await process.end(signal.SIGKILL)
                await asyncio.sleep(fault.outage_s)
                await process.start()
                await process.until_ready()
            case FaultKind.RESTART:
                await process.end(signal.SIGTERM)
                await asyncio.sleep(fault.outage_s)
                await process.start()
                await process.until_ready()
            case FaultKind.STOP:
                process.send(signal.SIGSTOP)
                await asyncio.sleep(fault.outage_s)
                process.send(signal.SIGCONT)
            case FaultKind.CUT:
                place.cut()
                await asyncio.sleep(fault.outage_s)
                place.heal()
        entry.back_s = time.monotonic()

    def _can_spare(self, part: Part) -> bool:
        """Whether it is there itself, and so is another that stands in for it."""
        there = [each for each in self.parts.values() if self._is_there(each)]
        others = [each for each in there if each.group == part.group and each is not part]
        return part in there and bool(others)

    def _is_there(self, part: Part) -> bool:
        suffered = [each for each in self.suffered if each.fault.part == part.name]
        if not suffered:
            return True
        back_s = suffered[-1].back_s
        return back_s is not None and time.monotonic() >= back_s + SEEN_S

    def metrics(self, service: Service) -> dict[str, str]:
        """What the processes of a service tell Prometheus, by name."""
        found: dict[str, str] = {}
        for name, process in self.processes.items():
            ready = process.life.ready
            if self.parts[name].service is service and process.is_running and ready is not None:
                with urllib.request.urlopen(f"http://{ready.metrics_address}/metrics") as answer:
                    found[name] = answer.read().decode()
        return found


@asynccontextmanager
async def running(layout: Layout, folder: Path, *, wants_cuts: bool) -> AsyncIterator[Mesh]:
    """A mesh that serves its models, for as long as the context is open."""
    async with AsyncExitStack() as stack:
        parts = layout.parts()
        places, why_not_cut = _places(stack, parts, wants_cuts=wants_cuts)
        complaints: list[str] = []
        processes = {
            part.name: PartProcess(
                part.name, folder, _command(part, places, parts, layout), complaints.append
            )
            for part in parts
        }
        for process in processes.values():
            await process.start()
            stack.push_async_callback(process.end)
        await asyncio.gather(*(process.until_ready() for process in processes.values()))
        gateways = [places[part.name] for part in parts if part.service is Service.GATEWAY]
        edge, process_id = await _start_envoy(stack, folder, gateways)
        models = {part.group for part in parts if part.service is Service.WORKER}
        await _until_served(edge.listen_port, models)
        yield Mesh(
            port=edge.listen_port,
            parts={part.name: part for part in parts},
            places=places,
            processes=processes,
            envoy_process_id=process_id,
            access_log=edge.access_log_path,
            can_cut=not why_not_cut,
            why_not_cut=why_not_cut,
            complaints=complaints,
        )


def _places(
    stack: AsyncExitStack, parts: Sequence[Part], *, wants_cuts: bool
) -> tuple[dict[str, Place], str]:
    """A place for each part, and why none of them can be cut off; "" when they can."""
    why_not = "not asked for"
    if wants_cuts:
        try:
            made = stack.enter_context(namespaces(len(parts), SERVICE_PORT))
        except NamespacesUnavailableError as error:
            why_not = str(error)
        else:
            return {part.name: place for part, place in zip(parts, made, strict=True)}, ""
    made = stack.enter_context(loopback(len(parts)))
    return {part.name: place for part, place in zip(parts, made, strict=True)}, why_not


def _command(
    part: Part, places: dict[str, Place], parts: Sequence[Part], layout: Layout
) -> Callable[[Path], list[str]]:
    place = places[part.name]
    controllers = [places[p.name].address for p in parts if p.service is Service.CONTROLLER]
    watched = [option for address in controllers for option in ("--controller", address)]
    match part.service:
        case Service.CONTROLLER:
            options = ["--id", part.name]
        case Service.GATEWAY:
            options = ["--id", part.name, *watched, "--grace-period", str(GRACE_PERIOD_S)]
        case Service.WORKER:
            options = ["--worker-id", part.name, *watched, "--grace-period", str(GRACE_PERIOD_S)]
            options += _engine_options(part, layout)

    def command(ready_file: Path) -> list[str]:
        return [
            *place.command_prefix,
            *(sys.executable, "-P", "-m", f"services.{part.service}"),
            *("--host", place.host, "--port", str(place.port), "--metrics-port", "0"),
            *("--ready-file", str(ready_file)),
            *options,
        ]

    return command


def _engine_options(part: Part, layout: Layout) -> list[str]:
    if part.group == DEMO_MODEL:
        return [
            *("--model-path", str(DEMO_CHECKPOINT), "--model-names", DEMO_MODEL),
            *("--device", "cpu", "--dtype", "float32", "--threads", "1"),
        ]
    return [
        *("--engine", "scripted", "--model-names", SCRIPTED_MODEL, "--scripted-answer-tokens", "0"),
        *("--scripted-token-interval-ms", str(layout.token_interval_ms)),
        *("--scripted-prefill-ms", str(layout.prefill_ms)),
    ]


async def _start_envoy(
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


async def _until_served(port: int, models: set[str]) -> None:
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
