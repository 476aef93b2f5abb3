"""One request on its way through the gateway, from admission to the last event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

from services.gateway.discovery.fleet import WorkerKey
from services.gateway.links.attempt import Attempt
from services.gateway.links.dispatch import Dispatch
from services.gateway.links.variant import Variant
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import Caller
from services.gateway.relay.delivery import Delivery
from services.gateway.relay.persistence import Persistence, PersistenceLimits
from services.gateway.relay.progress import ChoiceProgress
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.request_record import RequestRecord
from services.gateway.relay.suspicion import Suspicion
from services.gateway.relay.waiting_room import TurnRequest, WaitingRoom
from services.gateway.requests import requirements
from services.gateway.requests.cost import expected_tokens
from services.mesh.errors import AbortedError, DeadlineError, MeshError
from tokenmesh.worker.v1 import worker_pb2

SEED_BITS = 53
"""Drawn seeds fit a JSON number exactly."""

PROBATION_WAIT_S = 5.0
"""How long a suspect waits for a worker without another one, where there are workers. Longer keeps
more suspects apart; shorter has those behind them wait less."""

LOOK_AGAIN_S = 0.25
"""How soon a request that waits for a worker asks again those that have refused it."""


@dataclass(frozen=True)
class GenerationLimits:
    """What a gateway allows each request."""

    credit_window_tokens: int
    persistence: PersistenceLimits = field(default_factory=PersistenceLimits)
    poison_deaths: int = 2
    """Workers in a row that die of a request until it is stopped. 0 for never."""


class Generation:
    """A request that a worker answers; an async context manager and an async iterator.

    Entering admits the request, waits for its turn, picks a worker and starts it there. Iterating
    gives the events of all choices, until each has Finished. Leaving aborts what still runs. When
    its worker is lost, refuses it or drains, the request goes on elsewhere from where it stands,
    and the client sees nothing of it. With `whole`, the client gets nothing before all of it is
    there: one item holds every event.

    Raises:
        QueueFullError, ModelNotFoundError, NoWorkerError, InvalidRequestError: on entering.
        MeshError: while iterating, when a choice failed or its worker was lost; DeadlineError when
            the time is up.
    """

    def __init__(
        self,
        start: worker_pb2.Start,
        *,
        time_left_s: float,
        whole: bool,
        caller: Caller,
        dispatch: Dispatch,
        admission: Admission,
        waiting_room: WaitingRoom,
        limits: GenerationLimits,
        quarantine: Quarantine,
        metrics: GatewayMetrics,
        random: Random,
    ) -> None:
        self._seed_was_drawn = not start.sampling.HasField("seed")
        if self._seed_was_drawn:
            start.sampling.seed = random.getrandbits(SEED_BITS)
        start.credit_tokens = limits.credit_window_tokens
        self.request_id = start.request_id
        self.model = start.model
        self.seed = start.sampling.seed
        self.created_at_s = time.time()
        self._start = start
        self._deadline_s = time.monotonic() + time_left_s
        self._time_left_s = time_left_s
        self._dispatch = dispatch
        self._caller = caller
        self._admission = admission
        self._waiting_room = waiting_room
        self._limits = limits
        operation = "chat" if start.WhichOneof("prompt") == "chat" else "text_completion"
        self._record = RequestRecord(metrics, operation)
        self._delivery = Delivery(max(1, start.sampling.choices), self._record, whole=whole)
        self._persistence = Persistence(limits.persistence)
        self._suspicion = Suspicion(limits.poison_deaths)
        self._quarantine = quarantine
        self._is_over = False
        self._tried: set[WorkerKey] = set()
        self._variant: Variant | None = None
        self._granted_tokens = 0
        self._model_name = ""
        self._worker: WorkerKey
        self._attempt: Attempt
        self._timer: asyncio.TimerHandle

    async def __aenter__(self) -> Self:
        try:
            self._admission.admit(self._caller)
        except MeshError as error:
            self._record.end(error)
            raise
        try:
            await self._enter()
        except BaseException as error:
            self._admission.release(self._caller)
            self._record.end(error, was_left=isinstance(error, asyncio.CancelledError))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish(error)

    def __aiter__(self) -> AsyncIterator[Sequence[worker_pb2.SequenceEvent]]:
        return self

    async def __anext__(self) -> Sequence[worker_pb2.SequenceEvent]:
        """All events that have come since the last ones; the chunks of a choice joined into one."""
        delivery = self._delivery
        while delivery.unfinished:
            try:
                events = await self._attempt.take()
            except MeshError as error:
                await self._go_on_elsewhere(error)
                continue
            delivered, tokens = delivery.take(events)
            if tokens:
                self._replenish(tokens)
                if self._tried:
                    self._settle()
            if delivered:
                return delivered
        raise StopAsyncIteration

    @property
    def progress(self) -> Sequence[ChoiceProgress]:
        """What the client has received, by choice; of a whole answer, what is held for it."""
        return self._delivery.progress

    def abandon(self) -> None:
        """Ends the request where it stands, as leaving does. Changes nothing after that."""
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        self._attempt.abort(AbortedError("the client left"))
        self._admission.release(self._caller)
        self._waiting_room.leave(self._model_name)
        self._record.end(
            error,
            completion_tokens=self._delivery.completion_tokens(),
            was_left=self._delivery.unfinished > 0,
        )

    async def _enter(self) -> None:
        resolution = self._dispatch.resolve(self._start.model)
        self.model = self._start.model = resolution.name
        self._record.begin(resolution.name)
        requirements.check(self._start, resolution.model)
        self._quarantine.check(self._start, seed_was_drawn=self._seed_was_drawn)
        if self._time_left_s <= 0:
            raise self._deadline_error()
        self._model_name = resolution.model.name
        turn = TurnRequest(
            self._model_name,
            self._caller,
            self._start.priority,
            expected_tokens(self._start),
            self._deadline_s,
        )
        async with self._waiting_room.turn(turn):
            self._begin_attempt()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._deadline_s - time.monotonic(), self._expire)

    def _begin_attempt(self, *, alone: bool = True) -> None:
        """Starts the request, or goes on with it, on a worker that has not failed it of late. A
        suspect runs `alone` among suspects, where that is asked for.

        Raises:
            MeshError: there is none.
        """
        resolution = self._dispatch.resolve(self._start.model)
        suspected = alone and self._suspicion.is_suspect
        link = self._dispatch.pick(
            resolution, self._tried, self._start, like=self._variant, on_probation=suspected
        )
        if self._variant is None:
            self._variant = link.variants[resolution.model.name]
        self._worker = link.key
        self._tried.add(link.key)
        self._granted_tokens = self._limits.credit_window_tokens
        time_left_s = max(0.0, self._deadline_s - time.monotonic())
        self._start.time_left.FromNanoseconds(round(time_left_s * 1e9))
        first_numbers = self._delivery.move(self._start)
        self._attempt = link.start(self._start, first_numbers, on_probation=suspected)
        self._attempt.is_movable = self._is_movable

    def _is_movable(self) -> bool:
        """Whether another worker could go on with it just now."""
        try:
            resolution = self._dispatch.resolve(self._start.model)
        except MeshError:
            return False
        return self._dispatch.can_go_on(resolution, like=self._variant)

    async def _go_on_elsewhere(self, error: MeshError) -> None:
        """Has another worker go on, or raises the error where that must not be."""
        if self._is_over:
            raise error
        self._weigh_suspicion()
        has_output = self._delivery.has_output
        self._persistence.fail(error, time.monotonic(), has_output=has_output)
        self._tried.add(self._worker)
        if not self._has_begun_again():
            with self._record.waiting():
                await self._wait_for_worker(error)
        self._record.went_on(error, has_output=has_output)

    def _weigh_suspicion(self) -> None:
        """Stops the request when its workers have died of it.

        Raises:
            PoisonRequestError: they have.
        """
        if self._attempt.loss is not None:
            self._suspicion.accuse(self._attempt.loss)
            if self._suspicion.is_convicted:
                self._quarantine.add(self._start, seed_was_drawn=self._seed_was_drawn)
                self._record.convicted()
                raise self._quarantine.error()

    async def _wait_for_worker(self, error: MeshError) -> None:
        """Begins on the first worker that comes, or raises the error when none does in time."""
        now_s = time.monotonic()
        waits_for_others = self._suspicion.is_suspect and self._is_movable()
        until_s = now_s + max(
            self._persistence.wait_s(now_s), PROBATION_WAIT_S if waits_for_others else 0.0
        )
        while (left_s := until_s - time.monotonic()) > 0:
            await self._dispatch.wait_for_change(min(left_s, LOOK_AGAIN_S))
            if self._is_over:
                raise error
            self._tried.clear()
            if self._has_begun_again():
                return
        if not (waits_for_others and self._has_begun_again(alone=False)):
            # Nobody else is there, which says less than why it failed.
            raise error

    def _has_begun_again(self, *, alone: bool = True) -> bool:
        try:
            self._begin_attempt(alone=alone)
        except MeshError:
            return False
        return True

    def _settle(self) -> None:
        """The present worker does well: those that failed before it may be asked again."""
        self._tried.clear()
        self._persistence.progress()
        self._suspicion.clear()

    def _expire(self) -> None:
        error = self._deadline_error()
        self._attempt.abort(error)
        # A client that does not read must not keep its place.
        self._finish(error)

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(f"the request took longer than the {self._time_left_s:g} s it had")

    def _replenish(self, delivered_tokens: int) -> None:
        """Gives credit back once half of it is used, so that the worker never waits for it."""
        half = self._limits.credit_window_tokens // 2
        if self._granted_tokens - delivered_tokens <= half:
            self._granted_tokens += half
            self._attempt.grant_credit(half)
