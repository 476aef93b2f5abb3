"""One choice of a request: where it stands in the script, and when and why it ends."""

from __future__ import annotations

import codecs
from collections.abc import Hashable

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import (
    Chunk,
    Failed,
    Finished,
    FinishReason,
    OutputSoFar,
    Sampling,
    SequenceEvent,
    Started,
    Timing,
    TokenLogprob,
)
from services.worker.engines.scripted import vocabulary
from services.worker.engines.scripted.ending import Ending, Length
from services.worker.engines.scripted.script import Script
from services.worker.engines.stop_strings import StopStrings

UNLIMITED_CREDIT = 2**62
CHARACTER_BYTES = 4
"""The most bytes of UTF-8, and so the most tokens, that a character takes."""
UNLIKELY_LOGPROB = -20.0


class Sequence:
    """The output of one choice, a token at a time."""

    __slots__ = (
        "_gathered",
        "_length",
        "_plain",
        "_sampling",
        "_script",
        "_stop_strings",
        "_text_so_far",
        "_visible_markers",
        "admitted_s",
        "choice_index",
        "credit_tokens",
        "ended",
        "first_token_s",
        "key",
        "number",
        "position",
        "ready_s",
        "started",
        "unsent",
    )

    def __init__(
        self,
        *,
        key: Hashable,
        choice_index: int,
        script: Script,
        sampling: Sampling,
        length: Length,
        credit_tokens: int,
        so_far: OutputSoFar | None,
        echo: str,
        visible_markers: frozenset[str],
    ) -> None:
        """Stands at the start, or behind the output so far.

        Raises:
            InvalidRequestError: the output so far does not fit together.
        """
        self.key = key
        self.choice_index = choice_index
        self.credit_tokens = credit_tokens
        self.position = len(so_far.token_ids) if so_far else 0
        self.number = so_far.next_number if so_far else 0
        self.ended: Ending | None = None
        self.started = False
        self.admitted_s = 0.0
        self.ready_s = 0.0
        self.first_token_s = 0.0
        self._sampling = sampling
        self._length = length
        self._script = script
        self._visible_markers = visible_markers
        self._stop_strings = StopStrings(sampling.stop, include=sampling.include_stop_string)
        self._gathered: list[Chunk] = []
        self._plain = (
            not (sampling.stop or sampling.stop_token_ids)
            and sampling.top_logprobs is None
            and sampling.stream_interval_tokens == 1
        )
        self._text_so_far = ""
        self.unsent = echo
        if so_far:
            self._text_so_far = echo + self._replay(so_far.token_ids)
            self.unsent = _undelivered(self._text_so_far, so_far.delivered_bytes)

    def output_token_ids(self) -> list[int]:
        """What it has produced."""
        return [self._token_at(position) for position in range(self.position)]

    def start(self, prompt_tokens: int, cached_tokens: int, now_s: float) -> list[SequenceEvent]:
        """The prompt is computed."""
        self.started = True
        self.first_token_s = now_s
        started = Started(prompt_tokens, cached_tokens, text_so_far=self._text_so_far)
        events = [self.event(started)]
        if self.unsent:
            events.append(self.event(Chunk(self.unsent, ())))
        return events

    def finish(
        self, prompt_tokens: int, cached_tokens: int, arrived_s: float, now_s: float
    ) -> SequenceEvent:
        """The event that tells how the sequence `ended`."""
        assert self.ended is not None
        timing = Timing(
            queue_s=self.admitted_s - arrived_s,
            prefill_s=self.first_token_s - self.admitted_s,
            decode_s=now_s - self.first_token_s,
        )
        finished = Finished(
            reason=self.ended.reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=self.position,
            cached_tokens=cached_tokens,
            timing=timing,
            stop_string=self.ended.stop_string,
            stop_token_id=self.ended.stop_token_id,
        )
        return self.event(finished)

    def event(self, event: Started | Chunk | Finished | Failed) -> SequenceEvent:
        """Gives an event the sequence's next number."""
        number = self.number
        self.number = number + 1
        return SequenceEvent(self.key, self.choice_index, number, event)

    def next_chunk(self) -> Chunk | None:
        """Produces the next token. Sets `ended` when it was the last.

        None while tokens are gathered for one chunk.
        """
        position = self.position
        self.position = position + 1
        if self._plain and position + 1 < self._length.tokens:
            return self._script.chunk_at(position)
        token_id = self._token_at(position)
        text = self._take(position, token_id, self._text_at(position))
        return self._gather(Chunk(text, (token_id,), self._logprobs(token_id)))

    def _gather(self, chunk: Chunk) -> Chunk | None:
        self._gathered.append(chunk)
        if self.ended is None and len(self._gathered) < self._sampling.stream_interval_tokens:
            return None
        gathered, self._gathered = self._gathered, []
        if len(gathered) == 1:
            return chunk
        return Chunk(
            "".join(each.text for each in gathered),
            tuple(token_id for each in gathered for token_id in each.token_ids),
            tuple(logprob for each in gathered for logprob in each.logprobs),
        )

    def _token_at(self, position: int) -> int:
        is_last = position == self._length.tokens - 1
        if is_last and self._length.reason is FinishReason.STOP:
            return vocabulary.END_TOKEN_ID
        return self._script.chunk_at(position).token_ids[0]

    def _text_at(self, position: int) -> str:
        if self._token_at(position) == vocabulary.END_TOKEN_ID:
            return "" if self._sampling.skip_special_tokens else vocabulary.END_TOKEN_TEXT
        return self._script.chunk_at(position).text

    def _take(self, position: int, token_id: int, text: str) -> str:
        """Text to send for a token, after stop strings and the end have had their say."""
        sampling = self._sampling
        is_stop_token = token_id in sampling.stop_token_ids and position + 1 >= sampling.min_tokens
        is_last = position + 1 >= self._length.tokens
        shown = position + 1
        if is_stop_token and not sampling.include_stop_string:
            text, shown = "", position
        if (is_stop_token or is_last) and not text:
            text = self._half_character_before(shown)
        text, stop_string = self._stop_strings.feed(
            text, may_end=position + 1 >= sampling.min_tokens
        )
        if stop_string is not None:
            self.ended = Ending(FinishReason.STOP, stop_string=stop_string)
        elif is_stop_token:
            self.ended = Ending(FinishReason.STOP, stop_token_id=token_id)
        elif is_last:
            self.ended = Ending(self._length.reason)
        if self.ended is not None:
            text += self._stop_strings.flush()
        return text

    def _half_character_before(self, position: int) -> str:
        """What is left of a character that the end cuts: U+FFFD, as a decoder would show it."""
        first = max(0, position - CHARACTER_BYTES)
        cut = [self._token_at(each) for each in range(first, position)]
        if cut and cut[-1] == vocabulary.END_TOKEN_ID:
            cut.pop()
        whole = vocabulary.decode(cut, skip_special_tokens=False)
        return "\ufffd" if whole.endswith("\ufffd") else ""

    def _logprobs(self, token_id: int) -> tuple[TokenLogprob, ...]:
        if self._sampling.top_logprobs is None:
            return ()
        others = (vocabulary.FIRST_WORD_ID + each for each in range(len(vocabulary.WORDS)))
        ranked = [token_id, *(each for each in others if each != token_id)]
        top = [
            _logprob(each, 0.0 if each == token_id else UNLIKELY_LOGPROB)
            for each in ranked[: self._sampling.top_logprobs]
        ]
        return (_logprob(token_id, 0.0, tuple(top)),)

    def _replay(self, token_ids: tuple[int, ...]) -> str:
        """The text of the output so far. Leaves the sequence as it was behind it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        sent = ""
        for position, token_id in enumerate(token_ids):
            if self.ended is not None:
                raise InvalidRequestError(
                    f"output_so_far of choice {self.choice_index} goes on past its end",
                    field="output_so_far.token_ids",
                )
            text = decoder.decode(
                vocabulary.token_bytes(
                    token_id,
                    skip_special_tokens=self._sampling.skip_special_tokens,
                    visible_markers=self._visible_markers,
                )
            )
            sent += self._take(position, token_id, text)
        return sent


def _undelivered(text: str, delivered_bytes: int | None) -> str:
    """What of `text` the client has not received."""
    if delivered_bytes is None:
        return ""
    try:
        encoded = text.encode()
        if delivered_bytes <= len(encoded):
            return encoded[delivered_bytes:].decode()
    except UnicodeDecodeError:
        pass
    raise InvalidRequestError(
        f"delivered_bytes is {delivered_bytes}, which is no character boundary in the "
        f"{len(text.encode())} bytes of the output so far",
        field="output_so_far.delivered_bytes",
    )


def _logprob(token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    encoded = vocabulary.token_bytes(token_id)
    return TokenLogprob(token_id, encoded.decode("utf-8", "replace"), encoded, logprob, top)
