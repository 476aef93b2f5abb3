"""Parses one output as it comes from an engine, from its start or from where another worker was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.mesh.errors import InvalidRequestError
from services.worker.chat_formats.base import OutputParser
from services.worker.engines.base import (
    Chunk,
    Finished,
    FinishReason,
    OutputSoFar,
    Started,
    Timing,
)
from services.worker.parsing.deltas import Calls, Told
from services.worker.parsing.parsed import ParsedChunk


class ChoiceParsing:
    """Turns what an engine tells of one choice into what clients are told.

    What has been told is a function of the text so far, which another worker rebuilds from the
    token ids, and of whether the parser has let go what it held back to the end. `output_bytes`
    tell that: they add up to all of the text but its last byte, which goes with the rest.

    Args:
        parser: at the start of the output.
        calls: those of the output.
        is_named: whether the request names the tool to call: then the output ends as any other,
            as OpenAI has it.
        so_far: what another worker has produced and the client has.
        clock: seconds, on any clock.
    """

    def __init__(
        self,
        parser: OutputParser,
        calls: Calls,
        *,
        is_named: bool,
        so_far: OutputSoFar | None,
        clock: Callable[[], float],
    ) -> None:
        self.is_over = False
        """Whether it has ended here, although the engine may go on with it."""
        self._parser = parser
        self._calls = calls
        self._is_named = is_named
        self._so_far = so_far
        self._clock = clock
        self._was_flushed = False
        self._fed_bytes = 0
        self._told_bytes = 0
        self._completion_tokens = len(so_far.token_ids) if so_far else 0
        self._reasoning_tokens = so_far.reasoning_tokens if so_far else 0
        self._arrived_s = clock()
        self._started_s = self._arrived_s
        self._started = Started(0)

    @property
    def is_past_calls(self) -> bool:
        """Whether the output goes on with a call that it may not make: it is to be ended."""
        return self._calls.is_over_limit and not self.is_over

    def started(self, started: Started) -> Started:
        """The engine has begun. All that it tells of the output so far is with the client.

        Raises:
            InvalidRequestError: the output so far does not end where a chunk can have ended.
        """
        self._started, self._started_s = started, self._clock()
        if self._so_far is not None:
            self._skip(started.text_so_far, self._so_far.delivered_bytes or 0)
        return started

    def chunk(self, chunk: Chunk) -> ParsedChunk:
        """What a chunk of the engine's says."""
        was_reasoning = self._parser.is_reasoning
        told = self._feed(chunk.text) if chunk.text else Told()
        tokens = len(chunk.token_ids)
        reasoning_tokens = self._share_of_reasoning(tokens, told, was_reasoning)
        self._completion_tokens += tokens
        self._reasoning_tokens += reasoning_tokens
        return self._parsed(told, chunk, reasoning_tokens)

    def finished(self, finished: Finished) -> tuple[ParsedChunk | None, Finished]:
        """The end that the engine tells; before it a chunk, where something was held back."""
        self.is_over = True
        is_cut = finished.reason is not FinishReason.STOP or finished.stop_string is not None
        told = self._calls.tell(self._parser.finish(is_cut=is_cut))
        rest = self._parsed(told, Chunk("", ()), 0) if told and not self._was_flushed else None
        finished = replace(finished, reasoning_tokens=self._reasoning_tokens)
        if finished.reason is FinishReason.STOP and self._calls.has_whole and not self._is_named:
            finished = replace(
                finished, reason=FinishReason.TOOL_CALLS, stop_string=None, stop_token_id=None
            )
        return rest, finished

    def cut(self) -> Finished:
        """The end of an output that goes on with a call that it may not make. The time until the
        engine began counts as prefill: only the engine knows how much of it was waiting.
        """
        timing = Timing(
            queue_s=0.0,
            prefill_s=self._started_s - self._arrived_s,
            decode_s=self._clock() - self._started_s,
        )
        finished = Finished(
            reason=FinishReason.STOP,
            prompt_tokens=self._started.prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._started.cached_tokens,
            timing=timing,
        )
        self._was_flushed = True
        return self.finished(finished)[1]

    def _skip(self, text: str, delivered_bytes: int) -> None:
        """Stands behind what the client has."""
        if text:
            self._feed(text)
        self._told_bytes = delivered_bytes
        if delivered_bytes not in (self._fed_bytes, max(0, self._fed_bytes - 1)):
            raise InvalidRequestError(
                f"delivered_bytes is {delivered_bytes}, and the output so far holds "
                f"{self._fed_bytes}: of what is parsed, all but the last is delivered, or all",
                field="output_so_far.delivered_bytes",
            )
        # Where the other worker had seen the end, it let out what it held back.
        self._was_flushed = 0 < delivered_bytes == self._fed_bytes

    def _feed(self, text: str) -> Told:
        self._fed_bytes += len(text) if text.isascii() else len(text.encode())
        return self._calls.tell(self._parser.feed(text))

    def _parsed(self, told: Told, chunk: Chunk, reasoning_tokens: int) -> ParsedChunk:
        told_bytes = self._fed_bytes if self.is_over else max(0, self._fed_bytes - 1)
        output_bytes = told_bytes - self._told_bytes
        self._told_bytes = told_bytes
        return ParsedChunk(
            text=told.text,
            token_ids=chunk.token_ids,
            logprobs=chunk.logprobs,
            reasoning=told.reasoning,
            tool_calls=told.tool_calls,
            output_bytes=output_bytes,
            reasoning_tokens=reasoning_tokens,
        )

    def _share_of_reasoning(self, tokens: int, told: Told, was_reasoning: bool) -> int:
        """How many of a chunk's tokens were spent on reasoning: of one token whether it began
        there, of several their share of what they say.
        """
        is_reasoning = self._parser.is_reasoning
        if tokens == 1 or (was_reasoning == is_reasoning and (was_reasoning or not told.reasoning)):
            return tokens if was_reasoning else 0
        characters = len(told.reasoning) + len(told.text) + told.argument_characters
        if not characters:
            return tokens if was_reasoning else 0
        return round(tokens * len(told.reasoning) / characters)
