"""The gateway's connection to one worker: one channel, and one Generate stream for all requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import grpc
import structlog

from services.gateway.discovery.fleet import Load, Model, Worker
from services.gateway.links.attempt import RETRY_AFTER_S, Attempt
from services.gateway.links.breaker import Breaker, BreakerTuning
from services.gateway.links.variant import Variant
from services.gateway.relay.turns import Turns
from services.gateway.routing.base import Candidate, estimate_requests, free_places
from services.gateway.routing.latency import WorkerLatency
from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError, WorkerLostError
from services.mesh.server import is_serving
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

log = structlog.get_logger()

MAX_UNSENT_FRAMES = 8192
"""A worker that leaves so many frames unread takes no more requests. Aborts and credits may go
beyond it: there are few for each request."""

PROBE_DEADLINE_S = 2.0

# What a worker may send ahead of the gateway. By default gRPC lets this grow to megabytes, which is
# seconds of tokens that wait in buffers when a gateway is busier than its workers. With little, the
# worker notices, and its steps take more sequences at once. It still carries the tokens of some
# thousand sequences over a millisecond's round trip.
SEND_AHEAD_BYTES = 32 * 1024
CHANNEL_OPTIONS = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", SEND_AHEAD_BYTES),
)

OnTrip = Callable[["WorkerLink", MeshError], None]


class WorkerLink:
    """Runs requests on one worker process, as `attempt.Attempt`.

    `run` keeps the stream up until it is cancelled. When the stream breaks, every attempt on it is
    lost, and the worker takes no request before a probe has found it well.
    """

    def __init__(
        self,
        worker: Worker,
        turns: Turns,
        *,
        tuning: BreakerTuning | None = None,
        on_trip: OnTrip,
        on_available: Callable[[], None],
    ) -> None:
        """`on_available` is called when the worker is back, after it was lost."""
        self.key = worker.key
        self.worker_id = worker.worker_id
        self.incarnation = worker.incarnation
        self.address = worker.address
        self.is_draining = worker.draining
        self.breaker = Breaker(tuning)
        self.latency = WorkerLatency()
        self._turns = turns
        self._on_trip = on_trip
        self._on_available = on_available
        self._models: Sequence[Model] = ()
        self.variants: dict[str, Variant] = {}
        """What the worker serves, by the models' own names."""
        self._channel = open_channel(worker.address, CHANNEL_OPTIONS)
        self.stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._load = Load()
        self._in_flight_at_report = 0
        self._speed = 1.0
        self._max_running = 0
        self._running: dict[int, Attempt] = {}
        self._on_probation: Attempt | None = None
        self._next_key = 1
        self._unsent: deque[worker_pb2.GenerateRequest] = deque()
        self._has_unsent = asyncio.Event()
        self._is_up = True
        self._idle = asyncio.Event()
        self._idle.set()
        self.describe(worker)

    @property
    def in_flight(self) -> int:
        """Requests of this gateway that run there."""
        return len(self._running)

    @property
    def has_probation(self) -> bool:
        """Whether a request runs there that may be what its last worker died of."""
        return self._on_probation is not None and not self._on_probation.is_over

    @property
    def is_broken(self) -> bool:
        """Whether requests are kept from the worker."""
        return not self.is_available(time.monotonic())

    def is_available(self, now_s: float) -> bool:
        """Whether a request may go there."""
        return self._is_up and self.breaker.admits(now_s) and len(self._unsent) < MAX_UNSENT_FRAMES

    def describe(self, worker: Worker) -> bool:
        """Takes over what a controller told of the worker.

        Returns whether it may take requests now that it did not before.
        """
        may_take_more = self.is_draining and not worker.draining
        self.is_draining = worker.draining
        if worker.models != self._models:
            self._models = worker.models
            self.variants = {model.name: Variant.of(model) for model in worker.models}
            may_take_more = True
        self._speed = worker.capacity.speed
        self._max_running = worker.capacity.max_running
        if worker.load is not self._load:
            self._load = worker.load
            self._in_flight_at_report = self.in_flight
        return may_take_more

    def candidate(self, now_s: float) -> Candidate:
        """The worker as routing policies see it."""
        latency_s = self.latency.answer_s(now_s)
        return Candidate(self.worker_id, self._requests(), self._speed, latency_s)

    def free_places(self) -> float:
        """How many more requests it should take. Negative when it has too many already."""
        return free_places(self._requests(), self._max_running)

    def _requests(self) -> int:
        reported = self._load.running + self._load.waiting
        return estimate_requests(self.in_flight, reported, self._in_flight_at_report)

    def start(self, start: worker_pb2.Start, first_numbers: Sequence[int]) -> Attempt:
        """Starts a request. To be called only while `is_available`.

        `first_numbers` holds the number of the first event of each choice.
        """
        self.breaker.begin(time.monotonic())
        attempt = Attempt(self, self._turns, self._next_key, first_numbers)
        self._next_key += 1
        self._running[attempt.request_key] = attempt
        self._idle.clear()
        self.send(worker_pb2.GenerateRequest(request_key=attempt.request_key, start=start))
        return attempt

    async def run(self) -> None:
        """Keeps the stream up until cancelled."""
        try:
            while True:
                error = await self._stream_until_broken()
                self._break(error)
                await self._probe_until_well()
                log.info("worker is back", worker=self.worker_id)
                self._is_up = True
                self._on_available()
        finally:
            self._is_up = False
            self._lose_all(self._lost("the gateway has let go of it"))
            await self._channel.close()

    async def wait_idle(self) -> None:
        """Waits until no request runs there."""
        await self._idle.wait()

    def send(self, frame: worker_pb2.GenerateRequest) -> None:
        """Puts a frame on the stream, after those before it."""
        self._unsent.append(frame)
        self._has_unsent.set()

    def note_success(self) -> None:
        """The worker does what it was asked."""
        self.breaker.succeed()

    def note_latency(self, first_token_s: float | None, inter_token_s: float | None) -> None:
        """How long an attempt's first token took, or its others on average."""
        now_s = time.monotonic()
        if first_token_s is not None:
            self.latency.measure_first_token(first_token_s, now_s)
        if inter_token_s is not None:
            self.latency.measure_inter_token(inter_token_s, now_s)

    def note_ended(self, attempt: Attempt, error: MeshError | None) -> None:
        """An attempt takes no more events."""
        self._running.pop(attempt.request_key, None)
        if not self._running:
            self._idle.set()
        if error is not None and error.worker_fault and self.breaker.fault(time.monotonic()):
            log.warning("worker is at fault", worker=self.worker_id, reason=error.reason)
            self._on_trip(self, error)

    async def _stream_until_broken(self) -> WorkerLostError:
        call = self.stub.Generate()
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(call))
            try:
                return await self._read(call)
            finally:
                writer.cancel()
                call.cancel()

    async def _read(
        self,
        call: grpc.aio.StreamStreamCall[worker_pb2.GenerateRequest, worker_pb2.GenerateResponse],
    ) -> WorkerLostError:
        running = self._running
        try:
            async for response in call:
                for event in response.events:
                    attempt = running.get(event.request_key)
                    if attempt is not None:
                        attempt.receive(event)
        except asyncio.CancelledError:
            # grpc.aio raises it also for a call that it has cancelled by itself.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return self._lost("its stream was cancelled")
        except grpc.aio.AioRpcError as error:
            return self._lost(status.from_rpc_error(error).message)
        except Exception as error:
            # Whatever a worker sends, it must not end the gateway.
            log.exception("cannot read the worker's stream", worker=self.worker_id)
            return self._lost(f"its stream cannot be read: {type(error).__name__}")
        return self._lost("it ended the stream")

    async def _write(
        self,
        call: grpc.aio.StreamStreamCall[worker_pb2.GenerateRequest, worker_pb2.GenerateResponse],
    ) -> None:
        try:
            while True:
                await self._has_unsent.wait()
                while self._unsent:
                    await call.write(self._unsent.popleft())
                self._has_unsent.clear()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The stream is over; the reader learns why.
            return

    async def _probe_until_well(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self.breaker.retry_at_s - time.monotonic()))
            self.breaker.begin(time.monotonic())
            if await is_serving(self._channel, PROBE_DEADLINE_S):
                self.breaker.reopen_stream()
                return
            self.breaker.trip(time.monotonic())

    def _break(self, error: WorkerLostError) -> None:
        log.warning("stream to worker broke", worker=self.worker_id, why=error.message)
        self._is_up = False
        self.breaker.trip(time.monotonic())
        self._lose_all(error)
        self._on_trip(self, error)

    def _lose_all(self, error: WorkerLostError) -> None:
        self._unsent.clear()
        attempts = list(self._running.values())
        self._running.clear()
        self._idle.set()
        for attempt in attempts:
            attempt.lose(error)

    def _lost(self, why: str) -> WorkerLostError:
        return WorkerLostError(
            f"worker {self.worker_id} was lost: {why}", retry_after_s=RETRY_AFTER_S
        )
