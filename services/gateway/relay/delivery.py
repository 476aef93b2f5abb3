"""What the client of a request gets of what workers send."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.relay.merging import merge
from services.gateway.relay.progress import ChoiceProgress
from services.gateway.relay.request_record import RequestRecord
from tokenmesh.worker.v1 import worker_pb2

HELD_EVENTS_PER_CHOICE = 64
"""Fewer keep less memory, and copy a long answer more often."""


class Delivery:
    """Passes events on, notes how far each choice has come, and holds back what is sent whole.

    A request may move to another worker in between: what that one repeats goes no further.
    """

    def __init__(self, choices: int, record: RequestRecord, *, whole: bool) -> None:
        self.progress = [ChoiceProgress() for _ in range(choices)]
        """What the client has received, by choice; of a whole answer, what is held for it."""
        self.unfinished = choices
        self.has_output = False
        """Whether any of it was produced."""
        self._record = record
        self._held: list[worker_pb2.SequenceEvent] | None = [] if whole else None
        self._cached_tokens: dict[int, int] = {}
        self._has_moved = False

    def take(
        self, events: list[worker_pb2.SequenceEvent]
    ) -> tuple[Sequence[worker_pb2.SequenceEvent], int]:
        """What the client gets now, and the most tokens that a choice got from this worker, or 0.

        The events given are used up.
        """
        events, tokens = self._note(merge(events) if len(events) > 1 else events)
        if tokens:
            self.has_output = True
            self._record.delivered()
        if self._held is None:
            return events, tokens
        self._held += events
        if not self.unfinished:
            return merge(self._held), tokens
        if len(self._held) > HELD_EVENTS_PER_CHOICE * len(self.progress):
            self._held = merge(self._held)
        return (), tokens

    def move(self, start: worker_pb2.Start) -> list[int]:
        """Writes into `start` what another worker needs to go on from here.

        Returns the number of the next event of each choice.
        """
        self._has_moved = True
        start.ClearField("output_so_far")
        for index, progress in enumerate(self.progress):
            progress.move()
            if progress.next_number:
                progress.write(start.output_so_far.add(choice_index=index))
        return [progress.next_number for progress in self.progress]

    def completion_tokens(self) -> int:
        """Over all choices."""
        return sum(len(progress.token_ids) for progress in self.progress)

    def _note(
        self, events: list[worker_pb2.SequenceEvent]
    ) -> tuple[list[worker_pb2.SequenceEvent], int]:
        repeated: list[worker_pb2.SequenceEvent] = []
        tokens = 0
        for event in events:
            progress = self.progress[event.choice_index]
            kind = event.WhichOneof("event")
            if progress.is_finished:
                repeated.append(event)
            elif kind == "chunk":
                progress.deliver(event)
                tokens = max(tokens, progress.tokens_here)
            elif kind == "started":
                if progress.is_started:
                    repeated.append(event)
                else:
                    progress.is_started = True
                    self._cached_tokens[event.choice_index] = event.started.cached_tokens
                    self._record.started(event.started)
            else:
                progress.is_finished = True
                self.unfinished -= 1
                if self._has_moved:
                    # The client's prompt was computed once, as far as its usage goes.
                    usage = event.finished.usage
                    usage.cached_tokens = self._cached_tokens.get(event.choice_index, 0)
                self._record.finished(event.finished)
        if repeated:
            events = [event for event in events if not any(event is each for each in repeated)]
        return events, tokens
