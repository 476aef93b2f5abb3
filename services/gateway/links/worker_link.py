"""The gateway's connection to one worker: one channel, and one Generate stream for all requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from services.gateway.discovery.fleet import Worker
from services.gateway.links.attempt import RETRY_AFTER_S, Attempt
from services.gateway.links.breaker import Breaker, BreakerTuning
from services.gateway.links.generate_call import WORKER_HUNG, GenerateCall
from services.gateway.links.listing import Listing
from services.gateway.links.outgoing import Outgoing
from services.gateway.links.suspects import Loss, suspects
from services.gateway.links.unary_calls import Answer, UnaryCalls
from services.gateway.links.variant import Variant
from services.gateway.relay.turns import Turns
from services.gateway.routing.base import (
    Candidate,
)
from services.gateway.routing.latency import WorkerLatency
from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError, WorkerDrainingError, WorkerLostError
from services.mesh.server import is_serving
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

log = structlog.get_logger()

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
        hung_after_s: float,
    ) -> None:
        """`on_available` is called when the worker may take requests that it did not before."""
        self.key = worker.key
        self.worker_id = worker.worker_id
        self.incarnation = worker.incarnation
        self.address = worker.address
        self.breaker = Breaker(tuning)
        self.latency = WorkerLatency()
        self._turns = turns
        self._on_trip = on_trip
        self._on_available = on_available
        self._channel = open_channel(worker.address, CHANNEL_OPTIONS)
        self.stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._listing = Listing()
        self._running: dict[int, Attempt] = {}
        self._calls = UnaryCalls()
        self._on_probation: Attempt | None = None
        self._next_key = 1
        self._outgoing = Outgoing()
        self._is_up = True
        self._says_it_drains = False
        self._losses: list[Loss] = []
        self._hung_after_s = hung_after_s
        self._busy = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.describe(worker)

    @property
    def in_flight(self) -> int:
        """Requests of this gateway that run there."""
        return len(self._running) + len(self._calls)

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
        return self._is_up and self.breaker.admits(now_s) and self._outgoing.has_room

    @property
    def is_draining(self) -> bool:
        """Whether the worker takes nothing new: as it says itself, or as a controller tells."""
        return self._says_it_drains or self._listing.is_draining

    @property
    def variants(self) -> Mapping[str, Variant]:
        """What the worker serves, by the models' own names."""
        return self._listing.variants

    def describe(self, worker: Worker) -> bool:
        """Takes over what a controller told of the worker.

        Returns whether it may take requests now that it did not before.
        """
        was_draining = self.is_draining
        serves_more = self._listing.describe(worker, self.in_flight)
        if self.is_draining and not was_draining:
            self.move_requests()
        return serves_more or (was_draining and not self.is_draining)

    def candidate(self, now_s: float) -> Candidate:
        """The worker as routing policies see it."""
        listing = self._listing
        latency_s = self.latency.answer_s(now_s)
        return Candidate(self.worker_id, listing.requests(self.in_flight), listing.speed, latency_s)

    def free_places(self) -> float:
        """How many more requests it should take. Negative when it has too many already."""
        return self._listing.free_places(self.in_flight)

    def start(
        self,
        start: worker_pb2.Start,
        first_numbers: Sequence[int],
        *,
        on_probation: bool = False,
    ) -> Attempt:
        """Starts a request. To be called only while `is_available`.

        `first_numbers` holds the number of the first event of each choice.
        """
        self.breaker.begin(time.monotonic())
        attempt = Attempt(self, self._turns, self._next_key, first_numbers)
        self._next_key += 1
        self._running[attempt.request_key] = attempt
        if on_probation:
            self._on_probation = attempt
        self._idle.clear()
        self._busy.set()
        self.send(worker_pb2.GenerateRequest(request_key=attempt.request_key, start=start))
        return attempt

    def call(self, call: grpc.aio.UnaryUnaryCall[Any, Answer]) -> Awaitable[Answer]:
        """Counts a call that was just made with `stub`, and gives its answer, which is to be
        awaited. To be called only while `is_available`. It is lost with the worker.

        Raises:
            WorkerLostError: while awaiting, when the worker was lost.
            grpc.aio.AioRpcError: likewise, when the call failed.
        """
        self.breaker.begin(time.monotonic())
        self._calls.begin(call)
        self._idle.clear()
        self._busy.set()
        return self._answer(call)

    async def run(self) -> None:
        """Keeps the stream up until cancelled."""
        try:
            while True:
                call = GenerateCall(
                    self.worker_id,
                    outgoing=self._outgoing,
                    receive=self._receive,
                    busy=self._busy,
                    hung_after_s=self._hung_after_s,
                )
                error = await call.run(self._channel, self.stub)
                self._break(error)
                await self._probe_until_well()
                log.info("worker is back", worker=self.worker_id)
                await self._forgive_losses()
                self._says_it_drains = False
                self._is_up = True
                self._on_available()
        finally:
            self._is_up = False
            self._lose_all(
                WorkerLostError(
                    f"worker {self.worker_id} was lost: the gateway has let go of it",
                    retry_after_s=RETRY_AFTER_S,
                ),
                is_death=False,
            )
            await self._channel.close()

    async def wait_idle(self) -> None:
        """Waits until no request runs there."""
        await self._idle.wait()

    def send(self, frame: worker_pb2.GenerateRequest) -> None:
        """Puts a frame on the stream, after those before it."""
        self._outgoing.put(frame)

    def move_requests(self) -> None:
        """Has other workers go on with what runs there, where there are any that can."""
        error = WorkerDrainingError(
            f"worker {self.worker_id} drains, and no other could take the request over",
            retry_after_s=RETRY_AFTER_S,
        )
        for attempt in tuple(self._running.values()):
            attempt.move(error)

    def note_success(self, attempt: Attempt) -> None:
        """The worker does what it was asked: it has sent output, or all of it."""
        self.breaker.succeed()
        self._end_probation(attempt)

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
        self._end_probation(attempt)
        if not self.in_flight:
            self._rest()
        if error is not None:
            self._note_fault(error)

    async def _answer(self, call: grpc.aio.UnaryUnaryCall[Any, Answer]) -> Answer:
        try:
            answer = await self._calls.answer(call)
            self.breaker.succeed()
            return answer
        except grpc.aio.AioRpcError as rpc_error:
            self._note_fault(status.from_rpc_error(rpc_error))
            raise
        finally:
            if not self.in_flight:
                self._rest()

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

    def _lose_all(self, error: WorkerLostError, *, is_death: bool = True) -> None:
        self._outgoing.clear()
        self._on_probation = None
        attempts = list(self._running.values())
        self._running.clear()
        self._calls.lose(error)
        self._rest()
        loss = Loss(is_silent=error.reason == WORKER_HUNG)
        suspected = suspects(attempts, self._listing.max_running) if is_death else []
        if suspected:
            self._losses.append(loss)
        for attempt in attempts:
            attempt.lose(error, loss if attempt in suspected else None)

    async def _forgive_losses(self) -> None:
        """Clears those who were suspected of a death, where the worker has not died."""
        if not self._losses:
            return
        try:
            found = await self.stub.DescribeModels(
                worker_pb2.DescribeModelsRequest(), timeout=PROBE_DEADLINE_S
            )
        except grpc.aio.AioRpcError:
            return
        if found.incarnation == self.incarnation:
            for loss in self._losses:
                loss.was_survived = True
        self._losses.clear()

    def _receive(self, response: worker_pb2.GenerateResponse) -> None:
        running = self._running
        for event in response.events:
            attempt = running.get(event.request_key)
            if attempt is not None:
                attempt.receive(event)
        if response.serving_state:
            self._note_state(response.serving_state)

    def _note_state(self, state: worker_pb2.ServingState.ValueType) -> None:
        """Notes what the worker says of itself, which is sooner than a controller's word."""
        self._says_it_drains = state == worker_pb2.SERVING_STATE_DRAINING
        if self._says_it_drains:
            log.info("worker drains", worker=self.worker_id, requests=self.in_flight)
            self.move_requests()
        else:
            self._on_available()

    def _note_fault(self, error: MeshError) -> None:
        """Counts an error against the worker, where it is to blame."""
        if error.worker_fault and self.breaker.fault(time.monotonic()):
            log.warning("worker is at fault", worker=self.worker_id, reason=error.reason)
            self._on_trip(self, error)

    def _end_probation(self, attempt: Attempt) -> None:
        if attempt is self._on_probation:
            self._on_probation = None
            self._on_available()

    def _rest(self) -> None:
        self._idle.set()
        self._busy.clear()
