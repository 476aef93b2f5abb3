"""One request on one worker: its events on their way to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from services.gateway.links.suspects import Loss
from services.gateway.relay.turns import Turns
from services.mesh import status
from services.mesh.errors import MeshError, WorkerDrainingError, WorkerLostError
from tokenmesh.worker.v1 import worker_pb2

SEQUENCE_BROKEN = "SEQUENCE_BROKEN"
RETRY_AFTER_S = 1.0

_ENDED = -1


def _never() -> bool:
    return False


class AttemptOwner(Protocol):
    """The stream that an attempt runs on."""

    worker_id: str

    def send(self, frame: worker_pb2.GenerateRequest) -> None:
        """Puts a frame on the stream."""
        ...

    def note_success(self, attempt: Attempt) -> None:
        """The worker does what it was asked: it has sent output, or all of it."""
        ...

    def note_latency(self, first_token_s: float | None, inter_token_s: float | None) -> None:
        """How long the attempt's first token took, or its others on average."""
        ...

    def note_ended(self, attempt: Attempt, error: MeshError | None) -> None:
        """The attempt takes no more events. `error` is the worker's own, where it sent one."""
        ...


class Attempt:
    """One request as it runs on one worker.

    Events wait here until the client takes them; the credit that the worker was given bounds them.
    An attempt is over once every choice has finished, or it has failed or was aborted; what had
    come before can still be taken.
    """

    __slots__ = (
        "_began_at_s",
        "_error",
        "_events",
        "_first_token_at_s",
        "_next_numbers",
        "_owner",
        "_turns",
        "_unfinished",
        "_waiter",
        "has_output",
        "is_measurable",
        "is_movable",
        "is_over",
        "loss",
        "request_key",
    )

    def __init__(
        self,
        owner: AttemptOwner,
        turns: Turns,
        request_key: int,
        first_numbers: Sequence[int],
    ) -> None:
        """`first_numbers` holds the number of the first event of each choice."""
        self.request_key = request_key
        self.is_over = False
        self.has_output = False
        """Whether the worker has sent output."""
        self.is_measurable = True
        """Whether its pace is the worker's: no client that reads slowly has held it back."""
        self.loss: Loss | None = None
        """Set when the worker was lost, and may have been lost for this request."""
        self.is_movable: Callable[[], bool] = _never
        """Whether another worker could go on with the request just now."""
        self._began_at_s = time.monotonic()
        self._first_token_at_s = 0.0
        self._owner = owner
        self._turns = turns
        self._events: list[worker_pb2.SequenceEvent] = []
        self._next_numbers = list(first_numbers)
        self._unfinished = len(first_numbers)
        self._waiter: asyncio.Future[None] | None = None
        self._error: MeshError | None = None

    @property
    def choices(self) -> int:
        """Sequences that it has on the worker."""
        return len(self._next_numbers)

    @property
    def worker_id(self) -> str:
        """The worker that it runs on."""
        return self._owner.worker_id

    async def take(self) -> list[worker_pb2.SequenceEvent]:
        """All events that have come since the last call; waits for one where there is none.

        Raises:
            MeshError: the attempt has failed, and all that came before was taken.
        """
        while not self._events:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        turn = self._turns.take()
        if turn is not None:
            await turn
        events, self._events = self._events, []
        return events

    def receive(self, event: worker_pb2.SequenceEvent) -> None:
        """Takes an event from the worker's stream."""
        numbers = self._next_numbers
        index = event.choice_index
        if index >= len(numbers) or event.number != numbers[index]:
            self._break(event, numbers)
            return
        kind = event.WhichOneof("event")
        if kind == "chunk":
            if not self.has_output:
                self.has_output = True
                self._first_token_at_s = time.monotonic()
                self._owner.note_latency(self._first_token_at_s - self._began_at_s, None)
                self._owner.note_success(self)
            numbers[index] += 1
        elif kind == "started":
            numbers[index] += 1
        elif kind == "finished":
            numbers[index] = _ENDED
            self._unfinished -= 1
            if not self._unfinished:
                self._measure_inter_token(event.finished.usage.completion_tokens)
                self._owner.note_success(self)
                self._end(None)
        elif kind == "failed":
            self._unfinished -= 1
            self._fail_by_worker(status.from_status(event.failed.status))
            return
        else:
            self._break(event, numbers)
            return
        self._events.append(event)
        self._wake()

    def grant_credit(self, tokens: int) -> None:
        """Lets the worker send so many more tokens for each choice."""
        if not self.is_over:
            credit = worker_pb2.Credit(tokens=tokens)
            self._owner.send(
                worker_pb2.GenerateRequest(request_key=self.request_key, credit=credit)
            )

    def abort(self, error: MeshError) -> None:
        """Gives the request up at the worker. Whoever waits in `take` gets the error."""
        if self.is_over:
            return
        abort = worker_pb2.Abort(reason=error.message)
        self._owner.send(worker_pb2.GenerateRequest(request_key=self.request_key, abort=abort))
        self._error = error
        self._end(None)
        self._wake()

    def move(self, error: WorkerDrainingError) -> None:
        """Gives the request up here if another worker can go on with it, for which the error asks
        whoever waits in `take`.
        """
        if not self.is_over and self.is_movable():
            self.abort(error)

    def lose(self, error: WorkerLostError, loss: Loss | None = None) -> None:
        """Notes that the stream broke. `loss` is what the request is suspected of, if it is."""
        if not self.is_over:
            self.is_over = True
            self.is_movable = _never
            self.loss = loss
            self._error = error
            self._wake()

    def _measure_inter_token(self, completion_tokens: int) -> None:
        """Of an attempt that went on with an answer, more tokens count than it has made: that
        flatters its worker a little, once."""
        if self.has_output and self.is_measurable and completion_tokens > 1:
            duration_s = time.monotonic() - self._first_token_at_s
            self._owner.note_latency(None, duration_s / (completion_tokens - 1))

    def _break(self, event: worker_pb2.SequenceEvent, due: Sequence[int]) -> None:
        error = WorkerLostError(
            f"the worker's events came out of order: number {event.number} of choice "
            f"{event.choice_index}, where {list(due)} were due",
            reason=SEQUENCE_BROKEN,
            retry_after_s=RETRY_AFTER_S,
        )
        self._fail_by_worker(error)

    def _fail_by_worker(self, error: MeshError) -> None:
        self._error = error
        if error.reason == WorkerLostError.default_reason and not self.has_output:
            # The worker itself says that it has come to its end.
            self.loss = Loss()
        if self._unfinished:
            abort = worker_pb2.Abort(reason=f"a choice failed: {error.reason}")
            self._owner.send(worker_pb2.GenerateRequest(request_key=self.request_key, abort=abort))
        self._end(error)
        self._wake()

    def _end(self, error: MeshError | None) -> None:
        self.is_over = True
        # It would keep whoever asked for the attempt alive until the garbage collector runs.
        self.is_movable = _never
        self._owner.note_ended(self, error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
