"""What is told of an output that is parsed, and that another worker can go on with it anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mesh.errors import InvalidRequestError
from services.worker.chat_formats.base import ChatFormat, Tool, ToolUse
from services.worker.chat_formats.names import by_name
from services.worker.engines.base import (
    Chunk,
    Finished,
    FinishReason,
    OutputSoFar,
    SequenceEvent,
    Started,
    Timing,
)
from services.worker.parsing.call_ids import call_id
from services.worker.parsing.parsed import ParsedChunk
from services.worker.parsing.request_parsing import RequestParsing
from tests.fakes.tiny_format import TinyFormat
from tests.unit.test_chat_format_parsing import TRANSCRIPTS

TOOLS = ToolUse(tools=(Tool("f", ""), Tool("g", "")))
ONE_CALL = ToolUse(tools=TOOLS.tools, is_parallel=False)
NAMED = ToolUse(tools=TOOLS.tools[:1], is_required=True, is_named=True)
TIMING = Timing(0.0, 0.0, 0.0)


@dataclass
class Told:
    """What a client has got, and what its gateway keeps of it."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Id, name and arguments."""
    token_ids: tuple[int, ...] = ()
    output_bytes: int = 0
    reasoning_tokens: int = 0
    next_number: int = 0
    finished: Finished | None = None

    def take(self, told: SequenceEvent) -> None:
        assert self.finished is None
        self.next_number = told.number + 1
        event = told.event
        if isinstance(event, ParsedChunk):
            self.text += event.text
            self.reasoning += event.reasoning
            self.token_ids += event.token_ids
            self.output_bytes += event.output_bytes
            self.reasoning_tokens += event.reasoning_tokens
            for piece in event.tool_calls:
                if piece.call_id is not None:
                    assert piece.call_index not in self.calls
                    self.calls[piece.call_index] = [piece.call_id, piece.name or "", ""]
                self.calls[piece.call_index][2] += piece.arguments
        elif isinstance(event, Finished):
            self.finished = event


def parsing(
    tool_use: ToolUse = TOOLS,
    so_far: OutputSoFar | None = None,
    *,
    chat_format: ChatFormat | None = None,
    prompt_end: str = "",
) -> RequestParsing:
    written = chat_format or TinyFormat()
    return RequestParsing(
        1,
        lambda: written.parser(prompt_end, tool_use),
        tool_use,
        request_id="r",
        seed=1,
        output_so_far={} if so_far is None else {0: so_far},
        clock=lambda: 0.0,
    )


def engine_events(
    pieces: Sequence[str], *, had: int = 0, number: int = 0, reason: FinishReason
) -> list[SequenceEvent]:
    """What an engine tells whose tokens hold these pieces, from behind the first `had` of them."""
    events: list[Started | Chunk | Finished] = [Started(3, text_so_far="".join(pieces[:had]))]
    events += [Chunk(piece, (at,)) for at, piece in enumerate(pieces[had:], had)]
    events.append(Finished(reason, 3, len(pieces), 0, TIMING))
    return [SequenceEvent("key", 0, at, event) for at, event in enumerate(events, number)]


def read_all(
    pieces: Sequence[str],
    tool_use: ToolUse = TOOLS,
    reason: FinishReason = FinishReason.STOP,
    **written: Any,
) -> list[SequenceEvent]:
    reader = parsing(tool_use, **written)
    return [told for each in engine_events(pieces, reason=reason) for told in reader.read(each)]


def told_of(events: Sequence[SequenceEvent]) -> Told:
    told = Told()
    for each in events:
        told.take(each)
    return told


CALL = '<tool_call>f {"a": 1}</tool_call>'


def test_an_answer_with_everything() -> None:
    told = told_of(read_all(["<think>", "hm", "</think>", "So: ", CALL, CALL.replace("f", "g")]))
    assert (told.reasoning, told.text) == ("hm", "So: ")
    assert [each[1:] for each in told.calls.values()] == [["f", '{"a": 1}'], ["g", '{"a": 1}']]
    assert told.calls[0][0] == call_id("r", 1, 0, 0) != told.calls[1][0]
    assert told.finished is not None
    assert told.finished.reason is FinishReason.TOOL_CALLS
    assert told.finished.reasoning_tokens == told.reasoning_tokens == 2


@pytest.mark.parametrize(
    ("pieces", "tool_use", "reason", "told"),
    [
        (["Hello"], TOOLS, FinishReason.STOP, FinishReason.STOP),
        ([CALL], TOOLS, FinishReason.STOP, FinishReason.TOOL_CALLS),
        ([CALL], NAMED, FinishReason.STOP, FinishReason.STOP),
        ([CALL], TOOLS, FinishReason.LENGTH, FinishReason.LENGTH),
        (["<tool_call>f", ' {"a"'], TOOLS, FinishReason.STOP, FinishReason.STOP),
        (["<tool_call>f", ' {"a": 1}'], TOOLS, FinishReason.STOP, FinishReason.TOOL_CALLS),
        ([CALL, "<tool_call>g {"], TOOLS, FinishReason.STOP, FinishReason.TOOL_CALLS),
        ([CALL], ToolUse(), FinishReason.STOP, FinishReason.STOP),
    ],
    ids=["text", "call", "named", "length", "half", "unclosed", "whole and half", "no tools"],
)
def test_why_it_ended(
    pieces: list[str], tool_use: ToolUse, reason: FinishReason, told: FinishReason
) -> None:
    finished = told_of(read_all(pieces, tool_use, reason)).finished
    assert finished is not None
    assert finished.reason is told


def test_what_is_held_back_comes_before_the_end_with_a_number_of_its_own() -> None:
    events = read_all(["a", "<tool"])
    assert [each.number for each in events] == [0, 1, 2, 3, 4]
    assert isinstance(events[3].event, ParsedChunk)
    assert events[3].event.text == "<tool"
    assert [each.event.output_bytes for each in events if isinstance(each.event, ParsedChunk)] == [
        *(0, 5, 1)
    ]
    assert [each.number for each in read_all(["a", "b"])] == [0, 1, 2, 3]


def test_a_second_call_ends_an_output_that_may_make_one() -> None:
    reader = parsing(ONE_CALL)
    pieces = ["x", CALL, "<tool_call>", "g ", "{}", "</tool_call>", "more"]
    events = engine_events(pieces, reason=FinishReason.LENGTH)
    told = [read for each in events for read in reader.read(each)]
    whole = told_of(told)
    assert reader.has_cut
    assert list(whole.calls) == [0]
    assert whole.text == "x"
    assert whole.finished is not None
    assert whole.finished.reason is FinishReason.TOOL_CALLS
    assert (whole.finished.completion_tokens, whole.finished.prompt_tokens) == (4, 3)
    assert [each.number for each in told] == list(range(len(told)))


def test_a_place_where_no_chunk_ended_is_refused() -> None:
    reader = parsing(so_far=OutputSoFar((0, 1), 3, 2))
    with pytest.raises(InvalidRequestError) as refused:
        reader.read(SequenceEvent("key", 0, 3, Started(3, text_so_far="abcd<")))
    assert refused.value.field == "output_so_far.delivered_bytes"


def test_ids_of_calls_are_pure_and_apart() -> None:
    ids = {
        call_id(request, seed, choice, call)
        for request in ("a", "b")
        for seed in (1, 2)
        for choice in (0, 1)
        for call in (0, 1)
    }
    assert len(ids) == 16
    assert call_id("a", 1, 0, 0) == call_id("a", 1, 0, 0)
    assert all(len(each) == 29 and each.startswith("call_") and each[5:].isalnum() for each in ids)


WORDS = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "f ", "g ", "{}", '{"é": "🙂"}'),
        *("<", "<t", "<thi", "</", "</tool_", "ö", " ", "x", "words and ", ""),
    ]
)


@settings(deadline=None)
@given(
    st.lists(WORDS, max_size=12),
    st.sampled_from([TOOLS, ONE_CALL, NAMED, ToolUse()]),
    st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]),
    st.data(),
)
def test_a_cut_anywhere_changes_nothing(
    pieces: list[str], tool_use: ToolUse, reason: FinishReason, data: st.DataObject
) -> None:
    cut_anywhere(pieces, tool_use, reason, data)


@pytest.mark.parametrize("name", list(TRANSCRIPTS))
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_cut_anywhere_changes_nothing_in_any_family(name: str, data: st.DataObject) -> None:
    transcript = TRANSCRIPTS[name]
    text = transcript.text[: data.draw(st.integers(0, len(transcript.text)))]
    ends = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)) | {len(text)})
    pieces = [text[start:end] for start, end in pairwise([0, *ends])]
    reason = data.draw(st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]))
    cut_anywhere(
        pieces,
        transcript.tool_use,
        reason,
        data,
        chat_format=by_name(transcript.chat_format),
        prompt_end=transcript.prompt_end,
    )


def cut_anywhere(
    pieces: list[str],
    tool_use: ToolUse,
    reason: FinishReason,
    data: st.DataObject,
    **written: Any,
) -> None:
    """Cuts an output up to three times, and has another worker go on with it."""
    events = read_all(pieces, tool_use, reason, **written)
    whole = told_of(events)
    assert [each.number for each in events] == list(range(len(events)))
    told = told_of(events[: data.draw(st.integers(0, len(events) - 1))])
    for is_last in (False, False, True):
        had = told.token_ids
        so_far = OutputSoFar(had, told.next_number, told.output_bytes, told.reasoning_tokens)
        reader = parsing(tool_use, so_far if told.next_number else None, **written)
        further = [
            read
            for each in engine_events(pieces, had=len(had), number=told.next_number, reason=reason)
            for read in reader.read(each)
        ]
        assert [each.number for each in further] == list(
            range(told.next_number, told.next_number + len(further))
        )
        for each in further if is_last else further[: data.draw(st.integers(1, len(further)))]:
            told.take(each)
        if told.finished is not None:
            break
    told.next_number = whole.next_number
    assert told == whole


@settings(deadline=None)
@given(st.lists(WORDS, max_size=12), st.integers(1, 4))
def test_tokens_that_come_together_say_the_same(pieces: list[str], together: int) -> None:
    one_by_one = told_of(read_all(pieces))
    joined = ["".join(pieces[at : at + together]) for at in range(0, len(pieces), together)]
    at_once = told_of(read_all(joined))
    assert (at_once.text, at_once.reasoning) == (one_by_one.text, one_by_one.reasoning)
    assert at_once.calls == one_by_one.calls
    assert at_once.output_bytes == one_by_one.output_bytes
