"""One request on its way through the gateway, from admission to the last event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self

from services.gateway.links.attempt import Attempt
from services.gateway.links.dispatch import Dispatch
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.merging import merge
from services.gateway.relay.progress import ChoiceProgress
from services.gateway.relay.request_record import RequestRecord
from services.gateway.requests import requirements
from services.mesh.errors import (
    AbortedError,
    DeadlineError,
    MeshError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from tokenmesh.worker.v1 import worker_pb2

RETRYABLE = (UnavailableError, QueueFullError, ModelNotFoundError)
"""What another worker may do better. It is never the client's own error: the directory has the
model, so a worker that does not know it has just unloaded it."""

SEED_BITS = 53
"""Drawn seeds fit a JSON number exactly."""


HELD_EVENTS_PER_CHOICE = 64
"""Fewer keep less memory, and copy a long answer more often."""


@dataclass(frozen=True)
class GenerationLimits:
    """What a gateway allows each request."""

    max_attempts: int
    credit_window_tokens: int


class Generation:
    """A request that a worker answers; an async context manager and an async iterator.

    Entering admits the request, picks a worker and starts it there. Iterating gives the events of
    all choices, until each has Finished. Leaving aborts what still runs. What fails before the
    client has got a token is started again on another worker, and the client sees nothing of it.
    With `whole`, the client gets nothing before all of it is there: one item holds every event, and
    what fails on the way can be started again until then.

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
        dispatch: Dispatch,
        admission: Admission,
        limits: GenerationLimits,
        metrics: GatewayMetrics,
        random: Random,
    ) -> None:
        if not start.sampling.HasField("seed"):
            start.sampling.seed = random.getrandbits(SEED_BITS)
        start.credit_tokens = limits.credit_window_tokens
        self.request_id = start.request_id
        self.model = start.model
        self.seed = start.sampling.seed
        self.created_at_s = time.time()
        self.progress = [ChoiceProgress() for _ in range(max(1, start.sampling.choices))]
        """What the client has received, by choice; of a whole answer, what is held for it."""
        self._start = start
        self._deadline_s = time.monotonic() + time_left_s
        self._time_left_s = time_left_s
        self._dispatch = dispatch
        self._admission = admission
        self._limits = limits
        operation = "chat" if start.WhichOneof("prompt") == "chat" else "text_completion"
        self._record = RequestRecord(metrics, operation)
        self._is_over = False
        self._unfinished = len(self.progress)
        self._has_delivered_tokens = False
        self._held: list[worker_pb2.SequenceEvent] | None = [] if whole else None
        self._tried: set[str] = set()
        self._granted_tokens = 0
        self._attempt: Attempt
        self._timer: asyncio.TimerHandle

    async def __aenter__(self) -> Self:
        try:
            self._admission.admit()
        except MeshError as error:
            self._record.end(error)
            raise
        try:
            self._enter()
        except Exception as error:
            self._admission.release()
            self._record.end(error)
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
        while self._unfinished:
            try:
                events = await self._attempt.take()
            except MeshError as error:
                self._retry(error)
                continue
            delivered = self._deliver(events)
            if self._held is not None:
                self._hold(delivered)
                if not self._unfinished:
                    return merge(self._held)
            elif delivered:
                return delivered
        raise StopAsyncIteration

    def abandon(self) -> None:
        """Ends the request where it stands, as leaving does. Changes nothing after that."""
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        self._attempt.abort(AbortedError("the client left"))
        self._admission.release()
        tokens = sum(len(choice.token_ids) for choice in self.progress)
        self._record.end(error, completion_tokens=tokens, was_left=self._unfinished > 0)

    def _enter(self) -> None:
        resolution = self._dispatch.resolve(self._start.model)
        self.model = self._start.model = resolution.name
        self._record.begin(resolution.name)
        requirements.check(self._start, resolution.model)
        if self._time_left_s <= 0:
            raise self._deadline_error()
        self._begin_attempt()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._time_left_s, self._expire)

    def _begin_attempt(self) -> None:
        resolution = self._dispatch.resolve(self._start.model)
        link = self._dispatch.pick(resolution, self._tried, self._start)
        self._tried.add(link.worker_id)
        self._granted_tokens = self._limits.credit_window_tokens
        time_left_s = max(0.0, self._deadline_s - time.monotonic())
        self._start.time_left.FromNanoseconds(round(time_left_s * 1e9))
        self._attempt = link.start(self._start, len(self.progress))

    def _retry(self, error: MeshError) -> None:
        """Starts the request on another worker, or raises the error where that must not be."""
        if (
            self._is_over
            or self._has_delivered_tokens
            or not isinstance(error, RETRYABLE)
            or len(self._tried) >= self._limits.max_attempts
        ):
            raise error
        try:
            self._begin_attempt()
        except MeshError:
            # Nobody else is there, which says less than why it failed.
            raise error from None
        self._record.retried(error)
        if self._held is not None:
            self._held.clear()
            self.progress = [ChoiceProgress() for _ in self.progress]
            self._unfinished = len(self.progress)

    def _expire(self) -> None:
        error = self._deadline_error()
        self._attempt.abort(error)
        # A client that does not read must not keep its place.
        self._finish(error)

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(f"the request took longer than the {self._time_left_s:g} s it had")

    def _deliver(
        self, events: list[worker_pb2.SequenceEvent]
    ) -> Sequence[worker_pb2.SequenceEvent]:
        """The events that the client gets, noted as delivered."""
        if len(events) > 1:
            events = merge(events)
        repeated: list[worker_pb2.SequenceEvent] = []
        tokens = 0
        for event in events:
            progress = self.progress[event.choice_index]
            kind = event.WhichOneof("event")
            if kind == "chunk":
                progress.deliver(event)
                tokens = max(tokens, len(progress.token_ids))
            elif kind == "started":
                if progress.is_started:
                    repeated.append(event)
                progress.is_started = True
                self._record.started(event.started)
            else:
                progress.is_finished = True
                self._unfinished -= 1
                self._record.finished(event.finished)
        if tokens:
            self._has_delivered_tokens = self._held is None
            self._record.delivered()
            self._replenish(tokens)
        if repeated:
            return [event for event in events if event not in repeated]
        return events

    def _hold(self, events: Sequence[worker_pb2.SequenceEvent]) -> None:
        """Keeps events until all are there, joined now and then: one event a token is much."""
        assert self._held is not None
        self._held += events
        if len(self._held) > HELD_EVENTS_PER_CHOICE * len(self.progress):
            self._held = merge(self._held)

    def _replenish(self, delivered_tokens: int) -> None:
        """Gives credit back once half of it is used, so that the worker never waits for it."""
        half = self._limits.credit_window_tokens // 2
        if self._granted_tokens - delivered_tokens <= half:
            self._granted_tokens += half
            self._attempt.grant_credit(half)
