"""Holds the outputs of a best_of request back, and lets the likeliest out at the end."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

from services.worker.engines.base import Chunk, Failed, Finished, SequenceEvent, Started


@dataclass(slots=True)
class _Output:
    choice_index: int
    events: list[Started | Chunk | Finished] = field(default_factory=list)
    logprob: float = 0.0
    finished: Finished | None = None

    @property
    def mean_logprob(self) -> float:
        assert self.finished is not None
        return self.logprob / max(1, self.finished.completion_tokens)


class BestOf:
    """The outputs of one request until all have ended.

    The `choices` with the highest log probability per token are returned, likeliest first; equal
    ones in the order of their index. The first counts the completion tokens of those that are not
    returned, too, so that the request's usage is what was computed.
    """

    def __init__(self, key: Hashable, *, draws: int, choices: int) -> None:
        self._key = key
        self._choices = choices
        self._outputs = [_Output(index) for index in range(draws)]
        self._left = draws
        self._is_over = False

    def add_logprob(self, choice_index: int, logprob: float) -> None:
        """Counts one token of an output."""
        self._outputs[choice_index].logprob += logprob

    def take(
        self, choice_index: int, events: Iterable[Started | Chunk | Finished | Failed]
    ) -> list[SequenceEvent]:
        """Holds events. Returns those of all choices when there is nothing more to wait for.

        One output that fails fails the request; what comes of the others then is dropped.
        """
        if self._is_over:
            return []
        output = self._outputs[choice_index]
        for event in events:
            if isinstance(event, Failed):
                self._is_over = True
                return [SequenceEvent(self._key, index, 0, event) for index in range(self._choices)]
            output.events.append(event)
            if isinstance(event, Finished):
                output.finished = event
                self._left -= 1
        if self._left:
            return []
        self._is_over = True
        return self._release()

    def _release(self) -> list[SequenceEvent]:
        ranked = sorted(self._outputs, key=lambda each: -each.mean_logprob)
        others = sum(
            each.finished.completion_tokens for each in ranked[self._choices :] if each.finished
        )
        released = []
        for index, output in enumerate(ranked[: self._choices]):
            for number, event in enumerate(output.events):
                told = event
                if isinstance(event, Finished) and index == 0:
                    told = replace(event, completion_tokens=event.completion_tokens + others)
                released.append(SequenceEvent(self._key, index, number, told))
        return released
