"""The mesh under fire: every service several times, real Envoy in front, all of it processes."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.edge import start_envoy, until_served
from tests.chaos.faults import Fault, FaultKind, Part, Service, Suffered
from tests.chaos.layout import Layout, command_of
from tests.chaos.places import NamespacesUnavailableError, Place, loopback, namespaces
from tests.chaos.processes import PartProcess

SERVICE_PORT = 21000
# How long after it is back the others count on it: Envoy asks a gateway that was gone each second.
SEEN_S = 3.0


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
                part.name, folder, command_of(part, places, parts, layout), complaints.append
            )
            for part in parts
        }
        for process in processes.values():
            await process.start()
            stack.push_async_callback(process.end)
        await asyncio.gather(*(process.until_ready() for process in processes.values()))
        gateways = [places[part.name] for part in parts if part.service is Service.GATEWAY]
        edge, process_id = await start_envoy(stack, folder, gateways)
        models = {part.group for part in parts if part.service is Service.WORKER}
        await until_served(edge.listen_port, models)
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
