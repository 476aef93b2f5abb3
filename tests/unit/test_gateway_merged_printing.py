"""Whatever waits for a client is printed whole, merged or not, over REST and over gRPC."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.api.responses import chunk_of
from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.chat.stream import ChatStream
from services.gateway.openai.completions.printing import CompletionStream
from services.gateway.openai.envelope import Envelope
from services.gateway.openai.responses.events import EventPrinter
from services.gateway.openai.responses.making import ResponseInMaking
from services.gateway.relay.merging import merge
from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta
from tokenmesh.mesh.v1.generation_pb2 import FINISH_REASON_STOP, TokenLogprob
from tokenmesh.worker.v1.worker_pb2 import Chunk, Finished, SequenceEvent

CHOICES = 2
ENVELOPE = Envelope("id-1", 1_700_000_000, "org/m", "fp_1")
TEXTS = st.text('ab"\\\né😀', min_size=1, max_size=3)
KINDS = ("text", "thought", "held", "call", "more")


@st.composite
def outputs(draw: st.DrawFn, *, parsed: bool, choices: int = CHOICES) -> list[SequenceEvent]:
    """Chunks of several choices in any order, each choice's as a worker would send them."""
    numbers = [0] * choices
    calls = [0] * choices
    # A call that something else follows has ended.
    is_open = [False] * choices
    events = []
    kinds = KINDS if parsed else ("text",)
    for choice, kind, text in draw(
        st.lists(st.tuples(st.integers(0, choices - 1), st.sampled_from(kinds), TEXTS), max_size=20)
    ):
        number = numbers[choice]
        logprob = TokenLogprob(token_id=number, text=text, bytes=text.encode(), logprob=-0.5)
        chunk = Chunk(token_ids=[number], logprobs=[logprob])
        if parsed:
            chunk.output_bytes = len(text.encode())
        if kind == "thought":
            chunk.reasoning, chunk.reasoning_tokens = text, 1
        elif kind == "call":
            name = {"id": f"call_{calls[choice]}", "name": "f"}
            chunk.tool_calls.append(ToolCallDelta(index=calls[choice], arguments=text, **name))
            calls[choice] += 1
        elif kind == "more" and is_open[choice]:
            chunk.tool_calls.append(ToolCallDelta(index=calls[choice] - 1, arguments=text))
        elif kind == "text":
            chunk.text = text
        if kind in ("text", "thought", "call"):
            is_open[choice] = kind == "call"
        numbers[choice] += 1
        events.append(SequenceEvent(choice_index=choice, number=number, chunk=chunk))
    for choice in range(choices):
        done = Finished(reason=FINISH_REASON_STOP)
        events.append(SequenceEvent(choice_index=choice, number=numbers[choice], finished=done))
    return events


def copied(events: Sequence[SequenceEvent]) -> list[SequenceEvent]:
    """Merging uses its events up."""
    return [SequenceEvent.FromString(event.SerializeToString()) for event in events]


def waited(events: Sequence[SequenceEvent], at_once: int) -> list[list[SequenceEvent]]:
    """What a client gets that finds so many events each time."""
    batches = (events[place : place + at_once] for place in range(0, len(events), at_once))
    return [merge(copied(batch)) for batch in batches]


def values(printed: bytes) -> Iterator[Any]:
    """What server-sent events bring."""
    for event in printed.decode().split("\n\n"):
        for line in event.split("\n"):
            if line.startswith("data: {"):
                yield json.loads(line[6:])


def told(printed: bytes) -> dict[Any, Any]:
    """All that choices of a stream bring, put together: by choice and field."""
    found: dict[Any, Any] = Counter()
    for value in values(printed):
        for choice in value["choices"]:
            index, delta = choice["index"], choice.get("delta", choice)
            for name in ("text", "content", "reasoning_content"):
                found[index, name] = found.get((index, name), "") + (delta.get(name) or "")
            for call in delta.get("tool_calls", ()):
                key = (index, "call", call["index"])
                function = call["function"]
                named = function.get("name", "") + call.get("id", "")
                found[key] = found.get(key, "") + named + function["arguments"]
            logprobs = choice["logprobs"] or {}
            tokens = logprobs.get("content") or logprobs.get("tokens") or []
            found[index, "logprobs"] += len(tokens)
            found[index, "ids"] = [*(found[index, "ids"] or ()), *choice.get("token_ids", ())]
            found[index, "ends"] += choice["finish_reason"] is not None
    return found


@given(outputs(parsed=True), st.integers(2, 30), st.booleans())
def test_a_chat_tells_all_that_waited(
    events: list[SequenceEvent], at_once: int, with_ids: bool
) -> None:
    def printed(batches: Sequence[Sequence[SequenceEvent]]) -> bytes:
        stream = ChatStream(ENVELOPE, AnswerOptions(top_logprobs=0, token_ids=with_ids))
        return b"".join(stream.print(0, batch) for batch in batches)

    one_by_one = told(printed([[event] for event in events]))
    assert told(printed(waited(events, at_once))) == one_by_one
    for choice in range(CHOICES):
        chunks = [each.chunk for each in events if each.choice_index == choice]
        assert one_by_one[choice, "content"] == "".join(each.text for each in chunks)
        assert one_by_one[choice, "reasoning_content"] == "".join(each.reasoning for each in chunks)
        assert one_by_one[choice, "ends"] == 1
        assert not with_ids or one_by_one[choice, "ids"] == [
            token for each in chunks for token in each.token_ids
        ]


@given(outputs(parsed=False), st.integers(2, 30))
def test_a_completion_tells_all_that_waited(events: list[SequenceEvent], at_once: int) -> None:
    def printed(batches: Sequence[Sequence[SequenceEvent]]) -> bytes:
        options = AnswerOptions(top_logprobs=0, token_ids=True)
        stream = CompletionStream(ENVELOPE, options, choices_per_prompt=CHOICES)
        return b"".join(stream.print(0, batch) for batch in batches)

    one_by_one = told(printed([[event] for event in events]))
    assert told(printed(waited(events, at_once))) == one_by_one
    for choice in range(CHOICES):
        chunks = [each.chunk for each in events if each.choice_index == choice]
        assert one_by_one[choice, "text"] == "".join(each.text for each in chunks)
        assert one_by_one[choice, "logprobs"] == len(one_by_one[choice, "ids"])
        assert len(one_by_one[choice, "ids"]) == sum(len(each.token_ids) for each in chunks)


@given(outputs(parsed=True, choices=1), st.integers(2, 30))
def test_a_response_tells_all_that_waited(events: list[SequenceEvent], at_once: int) -> None:
    def streamed(batches: Sequence[Sequence[SequenceEvent]]) -> dict[str, str]:
        printer = EventPrinter()
        making = ResponseInMaking(
            *("resp_1", 1.0, "org/m", {"metadata": {}}),
            background=False,
            store=False,
            shows_summary=False,
            listener=printer,
        )
        for batch in batches:
            making.take(batch, 2.0)
        deltas: dict[str, str] = {}
        for event in values(b"".join(printer.take())):
            if event["type"].endswith(".delta"):
                deltas[event["type"]] = deltas.get(event["type"], "") + event["delta"]
        calls = [each for each in json.loads(making.json())["output"] if "arguments" in each]
        for number, call in enumerate(calls):
            deltas[f"call {number}"] = call["call_id"] + call["name"] + call["arguments"]
        return deltas

    assert streamed(waited(events, at_once)) == streamed([[event] for event in events])


@given(outputs(parsed=True, choices=1))
def test_a_typed_client_gets_all_that_waited(events: list[SequenceEvent]) -> None:
    one_by_one = [chunk_of(event.chunk) for event in events if event.HasField("chunk")]
    joined = [chunk_of(each.chunk) for each in merge(copied(events)) if each.HasField("chunk")]
    assert len(joined) <= 1
    for chunk in joined:
        assert chunk.text == "".join(each.text for each in one_by_one)
        assert chunk.reasoning == "".join(each.reasoning for each in one_by_one)
        assert list(chunk.token_ids) == [token for each in one_by_one for token in each.token_ids]
        assert len(chunk.logprobs) == sum(len(each.logprobs) for each in one_by_one)
        calls: dict[int, str] = {}
        for each in one_by_one:
            for call in each.tool_calls:
                calls[call.index] = calls.get(call.index, "") + call.arguments
        assert {call.index: call.arguments for call in chunk.tool_calls} == calls
