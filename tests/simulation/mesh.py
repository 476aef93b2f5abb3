"""A simulated mesh, and what is done to it."""

from __future__ import annotations

from services.controller.registry import WorkerState
from services.controller.suspicion import Dialled
from services.gateway.discovery.fleet import Worker, WorkerKey
from tests.simulation.controllers import Controller
from tests.simulation.gateways import SimulatedGateway
from tests.simulation.workers import SimulatedWorker
from tests.simulation.world import Host, World

MAX_SKEW_S = 3600.0


class SimulatedMesh:
    """Several of everything, joined by one world."""

    def __init__(
        self, seed: int, *, controllers: int = 2, workers: int = 3, gateways: int = 2, policy: str
    ) -> None:
        self.world = World(seed)
        self.controllers = [
            Controller(self.world, Host(f"c{n}"), self._dial, self._skew_s())
            for n in range(controllers)
        ]
        self.workers = [
            SimulatedWorker(self.world, Host(f"w{n}"), self.controllers) for n in range(workers)
        ]
        self.gateways = [
            SimulatedGateway(self.world, Host(f"g{n}"), self.controllers, self._send, policy)
            for n in range(gateways)
        ]
        self.abandoned: set[str] = set()
        """Hosts that are not started again."""

    def run(self, duration_s: float) -> None:
        """Lets time pass."""
        self.world.run_until(self.world.now_s + duration_s)

    def hurt(self, duration_s: float, *, spare_controllers: bool = False) -> None:
        """Lets time pass, in which parts die, freeze, are cut off, and come back or do not."""
        random = self.world.random
        end_s = self.world.now_s + duration_s
        while self.world.now_s < end_s:
            self.run(min(random.expovariate(0.7), end_s - self.world.now_s))
            self._hurt_one(spare_controllers=spare_controllers)

    def heal(self) -> None:
        """Has everything run again and be heard, except what was abandoned."""
        parts: list[Controller | SimulatedWorker] = [*self.controllers, *self.workers]
        for part in parts:
            part.host.is_stopped = part.host.is_cut = False
            if not part.host.is_alive and part.host.name not in self.abandoned:
                part.begin()
        for gateway in self.gateways:
            gateway.host.is_stopped = gateway.host.is_cut = False
        for worker in self.workers:
            worker.state = WorkerState.SERVING

    def abandon_controllers(self, count: int) -> None:
        """Kills controllers for good."""
        for controller in self.controllers[:count]:
            self.abandoned.add(controller.host.name)
            controller.end()

    def alive(self) -> set[WorkerKey]:
        """The workers that run."""
        return {worker.key for worker in self.workers if worker.host.is_alive}

    def _hurt_one(self, *, spare_controllers: bool) -> None:
        random = self.world.random
        parts: list[Controller | SimulatedWorker] = [*self.workers]
        if not spare_controllers:
            parts += self.controllers
        part = random.choice(parts)
        host = part.host
        match random.choice(("kill", "kill", "stop", "cut", "cut gateway", "drain", "jump")):
            case "kill" if host.is_alive:
                part.end()
                self.world.after(random.uniform(0.0, 12.0), lambda: self._begin(part))
            case "stop" if not host.is_stopped:
                host.is_stopped = True
                self.world.after(random.uniform(0.1, 15.0), lambda: self._set(host, stopped=False))
            case "cut" if not host.is_cut:
                host.is_cut = True
                self.world.after(random.uniform(0.1, 15.0), lambda: self._set(host, cut=False))
            case "cut gateway":
                gateway = random.choice(self.gateways).host
                gateway.is_cut = True
                self.world.after(random.uniform(0.1, 15.0), lambda: self._set(gateway, cut=False))
            case "drain" if isinstance(part, SimulatedWorker):
                part.state = random.choice(list(WorkerState))
            case "jump" if isinstance(part, Controller):
                part.skew_s = self._skew_s()

    def _begin(self, part: Controller | SimulatedWorker) -> None:
        if not part.host.is_alive and part.host.name not in self.abandoned:
            part.begin()

    def _set(self, host: Host, *, stopped: bool | None = None, cut: bool | None = None) -> None:
        host.is_stopped = host.is_stopped if stopped is None else stopped
        host.is_cut = host.is_cut if cut is None else cut

    def _skew_s(self) -> float:
        """How far a wall clock may be off: mostly little, at times an hour."""
        random = self.world.random
        return random.uniform(-1, 1) * (MAX_SKEW_S if random.random() < 0.5 else 1.0)

    def _listening(self, address: str) -> SimulatedWorker | None:
        return next(
            (each for each in self.workers if each.address == address and each.host.is_alive), None
        )

    def _dial(self, caller: Host, address: str) -> Dialled:
        worker = self._listening(address)
        name = address.partition(":")[0]
        host = next(each.host for each in self.workers if each.host.name == name)
        if caller.is_silent or host.is_silent:
            return Dialled.SILENT
        return Dialled.REFUSED if worker is None else Dialled.ANSWERED

    def _send(self, caller: Host, target: Worker) -> bool | None:
        match self._dial(caller, target.address):
            case Dialled.ANSWERED:
                return True
            case Dialled.REFUSED:
                return False
            case Dialled.SILENT:
                return None
