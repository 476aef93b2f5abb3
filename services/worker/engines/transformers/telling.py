"""What steps have produced, on its way to who takes it: detokenized and made into events."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import NamedTuple

from services.worker.engines.base import SequenceEvent
from services.worker.engines.transformers import events
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.text.output import Ending
from services.worker.engines.transformers.text.token_texts import TokenTexts


class Token(NamedTuple):
    """A token that was added to its sequence, and of which nobody was told."""

    sequence: Sequence
    sampled: Sampled
    ending: Ending | None
    """What ids tell of the sequence's end."""
    added_s: float


class Telling:
    """Keeps tokens and events in order until they are published.

    So that a device need not wait for the detokenizing of a step, that can be done when the next
    one has been launched.

    Args:
        texts: the tokens' texts.
        publish: takes the events of a step.
    """

    def __init__(self, texts: TokenTexts, publish: Callable[[Rows[SequenceEvent]], None]) -> None:
        self._texts = texts
        self._publish = publish
        self._kept: list[Token | list[SequenceEvent]] = []
        self._faults: dict[Sequence, Exception] = {}

    def keep_token(self, token: Token) -> None:
        """To be told of later."""
        self._kept.append(token)

    def keep_events(self, made: list[SequenceEvent]) -> None:
        """To be published later."""
        self._kept.append(made)

    def make_events(self, token: Token) -> None:
        """Tells of a token, to be published later. May set the sequence's ending."""
        self._kept.append(self._events_of(token))

    def publish(self) -> None:
        """Publishes all that was kept, as one step."""
        kept, self._kept = self._kept, []
        out: list[SequenceEvent] = []
        for each in kept:
            out += self._events_of(each) if isinstance(each, Token) else each
        if out:
            self._publish(out)

    def take_faults(self) -> dict[Sequence, Exception]:
        """The sequences that could not be told of since the last call, and why.

        What else is kept of them is dropped.
        """
        faults, self._faults = self._faults, {}
        if faults:
            self._kept = [
                each
                for each in self._kept
                if not (isinstance(each, Token) and each.sequence in faults)
            ]
        return faults

    def _events_of(self, token: Token) -> list[SequenceEvent]:
        sequence, sampled, ending, added_s = token
        if sequence in self._faults:
            return []
        out = [] if sequence.started else events.started(sequence, self._texts)
        try:
            out += events.sampled(sequence, sampled, ending, self._texts, added_s)
        except Exception as fault:
            self._faults[sequence] = fault
        return out
