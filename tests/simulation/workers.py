"""A worker: attaches to every controller, sends heartbeats, attaches again when a stream ends."""

from __future__ import annotations

from collections.abc import Sequence

from services.controller.registry import Capacity, Model, Worker, WorkerState
from tests.simulation.controllers import TERMS, AttachStream, Controller
from tests.simulation.world import Connection, Host, World

MODEL = "m"
_MODELS = (Model(MODEL, (), (), b""),)
_CAPACITY = Capacity(max_running=8, max_waiting=8, kv_total_tokens=0, speed=1.0)
RETRY_S = (0.1, 0.5)


class SimulatedWorker:
    """One worker id. Each start is a new incarnation, sometimes at a new address."""

    def __init__(self, world: World, host: Host, controllers: Sequence[Controller]) -> None:
        self.host = host
        self.state = WorkerState.SERVING
        self.address = ""
        self.incarnation = ""
        self.running = 0
        self._world = world
        self._controllers = controllers
        self.begin()

    @property
    def key(self) -> tuple[str, str]:
        """Worker id and incarnation."""
        return (self.host.name, self.incarnation)

    def begin(self) -> None:
        """Starts the process."""
        host = self.host
        host.life += 1
        host.is_alive = True
        host.is_stopped = False
        self.state = WorkerState.SERVING
        self.incarnation = f"{host.name}#{host.life}"
        if not self.address or self._world.random.random() < 0.5:
            self.address = f"{host.name}:{host.life}"
        for controller in self._controllers:
            self._attach(controller, host.life)

    def end(self) -> None:
        """Kills the process."""
        self.host.is_alive = False

    def _attach(self, controller: Controller, life: int) -> None:
        if not self._is_running(life):
            self._again(controller, life)
            return
        if not controller.host.is_alive or controller.host.is_silent or self.host.is_cut:
            self._again(controller, life)
            return
        stream: AttachStream
        connection = Connection(
            self._world,
            self.host,
            controller.host,
            lambda: self._again(controller, life),
            lambda: controller.detach(stream),
        )
        stream = AttachStream(connection)
        connection.to_server(
            lambda: controller.hello(
                stream, self._describe(), lambda _: self._beat(controller, stream, life)
            )
        )

    def _beat(self, controller: Controller, stream: AttachStream, life: int) -> None:
        if not stream.connection.is_open or self.host.life != life or not self.host.is_alive:
            return
        if not self.host.is_stopped:
            state, running = self.state, self.running
            stream.connection.to_server(lambda: controller.heartbeat(stream, state, running))
        self._world.after(TERMS.heartbeat_interval_s, lambda: self._beat(controller, stream, life))

    def _again(self, controller: Controller, life: int) -> None:
        if self.host.is_alive and self.host.life == life:
            self._world.after(
                self._world.random.uniform(*RETRY_S), lambda: self._attach(controller, life)
            )

    def _describe(self) -> Worker:
        return Worker(
            worker_id=self.host.name,
            incarnation=self.incarnation,
            address=self.address,
            state=self.state,
            models=_MODELS,
            capacity=_CAPACITY,
        )

    def _is_running(self, life: int) -> bool:
        return self.host.is_alive and self.host.life == life and not self.host.is_stopped
