"""One request on its way through the gateway, from admission to the last event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from random import Random
from types import TracebackType
from typing import Self

from services.gateway.links.dispatch import Dispatch
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import Caller
from services.gateway.relay.course import Course, GenerationLimits
from services.gateway.relay.delivery import Delivery
from services.gateway.relay.progress import ChoiceProgress
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.request_record import RequestRecord
from services.gateway.relay.spending import Spending
from services.gateway.relay.waiting_room import TurnRequest, WaitingRoom
from services.gateway.requests import requirements
from services.gateway.requests.cost import expected_tokens
from services.mesh.errors import AbortedError, DeadlineError, MeshError
from tokenmesh.worker.v1 import worker_pb2

SEED_BITS = 53
"""Drawn seeds fit a JSON number exactly."""


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
        seed_was_drawn = not start.sampling.HasField("seed")
        if seed_was_drawn:
            start.sampling.seed = random.getrandbits(SEED_BITS)
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
        operation = "chat" if start.WhichOneof("prompt") == "chat" else "text_completion"
        self._record = RequestRecord(metrics, operation)
        self._delivery = Delivery(max(1, start.sampling.choices), self._record, whole=whole)
        sampling = start.sampling
        self._spending = Spending(
            caller.rate,
            limits.credit_window_tokens,
            choices=max(1, sampling.choices),
            max_tokens=sampling.max_tokens if sampling.HasField("max_tokens") else None,
        )
        self._course = Course(
            start,
            seed_was_drawn=seed_was_drawn,
            deadline_s=self._deadline_s,
            delivery=self._delivery,
            record=self._record,
            spending=self._spending,
            dispatch=dispatch,
            quarantine=quarantine,
            limits=limits,
        )
        self._is_over = False
        self._model_name = ""
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
        delivery, course = self._delivery, self._course
        while delivery.unfinished:
            try:
                events = await course.attempt.take()
            except MeshError as error:
                await course.go_on(error)
                continue
            delivered, tokens = delivery.take(events)
            if tokens:
                course.note_tokens(tokens)
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
        left = AbortedError("the client left")
        self._course.end(error if isinstance(error, MeshError) else left)
        self._admission.release(self._caller)
        self._waiting_room.leave(self._model_name)
        self._spending.pay_prompt(self._record.prompt_tokens)
        self._spending.settle(self._delivery.completion_tokens())
        self._record.end(
            error,
            progress=self._delivery.progress,
            was_left=self._delivery.unfinished > 0,
        )

    async def _enter(self) -> None:
        resolution = self._dispatch.resolve(self._start.model)
        self.model = self._start.model = resolution.name
        self._record.begin(resolution.name)
        requirements.check(self._start, resolution.model)
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
            self._course.begin()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._deadline_s - time.monotonic(), self._expire)

    def _expire(self) -> None:
        # A client that does not read must not keep its place.
        self._finish(self._deadline_error())

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(f"the request took longer than the {self._time_left_s:g} s it had")
