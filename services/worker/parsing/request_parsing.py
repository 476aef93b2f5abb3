"""Parses the outputs of one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from services.worker.chat_formats.base import OutputParser, ToolUse
from services.worker.engines.base import (
    Chunk,
    Failed,
    Finished,
    OutputSoFar,
    SequenceEvent,
    Started,
)
from services.worker.parsing.call_ids import call_id
from services.worker.parsing.choice_parsing import ChoiceParsing
from services.worker.parsing.deltas import Calls


class RequestParsing:
    """Stands between an engine's events and those that are told, for one request.

    Args:
        choices: how many outputs are told.
        parser: makes a parser at the start of an output.
        tool_use: what may be called.
        request_id: of which, with the seed, the ids of calls are made.
        output_so_far: what each choice has produced elsewhere.
        clock: seconds, on any clock.
    """

    def __init__(
        self,
        choices: int,
        parser: Callable[[], OutputParser],
        tool_use: ToolUse,
        *,
        request_id: str,
        seed: int,
        output_so_far: Mapping[int, OutputSoFar],
        clock: Callable[[], float],
    ) -> None:
        self.choices = choices
        """How many outputs it reads."""
        self.has_cut = False
        """Whether it has ended a choice that the engine goes on with."""
        self._choices = [
            ChoiceParsing(
                parser(),
                Calls(
                    partial(call_id, request_id, seed, index),
                    at_most=None if tool_use.is_parallel else 1,
                ),
                is_named=tool_use.is_named,
                so_far=output_so_far.get(index),
                clock=clock,
            )
            for index in range(choices)
        ]

    def read(self, told: SequenceEvent) -> Sequence[SequenceEvent]:
        """What an event of the engine's becomes: mostly one event, with its number.

        Raises:
            InvalidRequestError: see ChoiceParsing.started.
        """
        choice = self._choices[told.choice_index]
        if choice.is_over:
            return ()
        event = told.event
        read: list[Started | Chunk | Finished | Failed]
        match event:
            case Chunk():
                read = [choice.chunk(event)]
            case Started():
                read = [choice.started(event)]
            case Finished():
                rest, finished = choice.finished(event)
                read = [finished] if rest is None else [rest, finished]
            case _:
                return (told,)
        if choice.is_past_calls:
            self.has_cut = True
            read.append(choice.cut())
        return [
            SequenceEvent(told.key, told.choice_index, number, each)
            for number, each in enumerate(read, told.number)
        ]
