"""What a worker sends becomes OpenAI's events and items, whatever comes after what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from services.gateway.openai.responses.events import EventPrinter, is_last
from services.gateway.openai.responses.making import ResponseInMaking
from services.gateway.relay.merging import merge
from services.mesh.errors import (
    ContextLengthError,
    InternalError,
    MeshError,
    QueueFullError,
    WorkerLostError,
)
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta
from tokenmesh.worker.v1.worker_pb2 import Chunk, Finished, SequenceEvent, Started

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
NOW_S = 1_700_000_001.5
STOP = generation_pb2.FINISH_REASON_STOP
LENGTH = generation_pb2.FINISH_REASON_LENGTH
TOLD: dict[str, Any] = {
    "instructions": None,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "metadata": {},
}


def making(printer: EventPrinter | None = None, **settings: Any) -> ResponseInMaking:
    settings = {"background": False, "store": True, "shows_summary": False, **settings}
    return ResponseInMaking("resp_1", 1_700_000_000.25, "org/m", TOLD, listener=printer, **settings)


def chunk(**fields: Any) -> SequenceEvent:
    return SequenceEvent(chunk=Chunk(**fields))


def call(index: int, arguments: str, *, call_id: str = "", name: str = "") -> SequenceEvent:
    delta = ToolCallDelta(index=index, arguments=arguments)
    if name:
        delta.id, delta.name = call_id, name
    return chunk(tool_calls=[delta])


def finished(reason: generation_pb2.FinishReason.ValueType = STOP) -> SequenceEvent:
    usage = generation_pb2.Usage(
        prompt_tokens=5, completion_tokens=4, cached_tokens=3, reasoning_tokens=2
    )
    return SequenceEvent(finished=Finished(reason=reason, usage=usage))


def events_of(printed: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events, once their lines are seen to be in order."""
    found = []
    for each in printed:
        first, second, *rest = each.decode().split("\n")
        assert rest == ["", ""]
        value = json.loads(second.removeprefix("data: "))
        assert first == f"event: {value['type']}"
        found.append(value)
    return found


def stream(
    events: Sequence[SequenceEvent], **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All events of a stream, and the response at its end."""
    printer = EventPrinter()
    response = making(printer, **settings)
    printer.response("created", response.json())
    printer.response("in_progress", response.json())
    for event in events:
        response.take([event], NOW_S)
    printer.response(response.status, response.json())
    printed = printer.take()
    assert [is_last(each) for each in printed] == [False] * (len(printed) - 1) + [True]
    assert all(len(each.decode().splitlines()) == 3 for each in printed)
    return events_of(printed), json.loads(response.json())


def test_a_message_event_by_event() -> None:
    events, response = stream([SequenceEvent(started=Started()), chunk(text="Hel"), finished()])
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]
    item_id = response["output"][0]["id"]
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", "sequence_number": 4, "delta": "Hel"}
    assert events[4] == {**delta, **place, "logprobs": []}
    empty = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    assert events[3]["part"] == empty
    assert events[2]["item"]["content"] == []
    assert events[2]["item"]["status"] == "in_progress"
    assert events[6]["part"] == {**empty, "text": "Hel"}
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"] == response


def test_a_whole_response() -> None:
    response = making()
    thought = chunk(reasoning="Hm", token_ids=[1], reasoning_tokens=1)
    response.take([thought, chunk(text="Hi"), finished()], NOW_S)
    told = json.loads(response.json())
    assert told["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 9,
    }
    assert (told["created_at"], told["completed_at"]) == (1_700_000_000, 1_700_000_001)
    assert (told["status"], told["error"], told["incomplete_details"]) == ("completed", None, None)
    reasoning, message = told["output"]
    assert reasoning["id"].startswith("rs_")
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert message["id"].startswith("msg_")
    assert Response.model_validate(told).output_text == "Hi"


def test_a_summary_is_shown_as_one_where_it_is_asked_for() -> None:
    events, response = stream([chunk(reasoning="Hm"), finished()], shows_summary=True)
    kinds = [event["type"].removeprefix("response.") for event in events[2:-1]]
    assert kinds == [
        "output_item.added",
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        "output_item.done",
    ]
    (item,) = response["output"]
    assert item["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert item["content"] == []


def test_calls_follow_each_other() -> None:
    _, response = stream(
        [
            call(0, '{"a"', call_id="call_a", name="add"),
            call(0, ":1}"),
            call(1, "{}", call_id="call_b", name="sub"),
            finished(generation_pb2.FINISH_REASON_TOOL_CALLS),
        ]
    )
    told = [(each["call_id"], each["name"], each["arguments"]) for each in response["output"]]
    assert told == [("call_a", "add", '{"a":1}'), ("call_b", "sub", "{}")]
    assert response["status"] == "completed"


def test_a_call_that_was_ended_is_not_gone_on_with() -> None:
    response = making()
    first, second = call(0, "{", call_id="a", name="f"), call(1, "{", call_id="b", name="f")
    with pytest.raises(InternalError):
        response.take([first, second, call(0, "}")], NOW_S)


def test_what_goes_on_with_an_open_item_comes_first_in_a_merged_chunk() -> None:
    begun = call(0, '{"a"', call_id="a", name="f")
    rest = [call(0, ":1}"), chunk(text="Done."), call(1, "{}", call_id="b", name="g")]
    _, response = stream([begun, *merge(rest), finished()])
    kinds = [(each["type"], each.get("arguments")) for each in response["output"]]
    assert kinds == [
        ("function_call", '{"a":1}'),
        ("message", None),
        ("function_call", "{}"),
    ]


def test_the_length_makes_a_response_incomplete() -> None:
    events, response = stream([chunk(text="Hel"), finished(LENGTH)])
    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] == 4


def test_an_empty_answer_is_an_empty_message() -> None:
    _, response = stream([finished()])
    assert response["output"][0]["content"][0]["text"] == ""
    _, response = stream([finished(LENGTH)])
    assert response["output"] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerLostError("gone"), "server_error"),
        (QueueFullError("full"), "rate_limit_exceeded"),
        (ContextLengthError("long"), "invalid_prompt"),
    ],
)
def test_a_failure_is_told_with_what_came_before(error: MeshError, code: str) -> None:
    printer = EventPrinter()
    response = making(printer)
    response.take([chunk(text="Hel")], NOW_S)
    response.fail(error, "words")
    printer.response(response.status, response.json())
    last = events_of(printer.take())[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": code, "message": "words"}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
    STREAM_EVENT.validate_python(last)


def test_a_cancelled_response_ends_with_an_error() -> None:
    printer = EventPrinter(first=7)
    response = making()
    response.cancel()
    printer.end(response.status, response.json())
    (last,) = events_of(printer.take())
    assert (last["type"], last["sequence_number"]) == ("error", 7)
    assert last["code"] == "response_cancelled"
    STREAM_EVENT.validate_python(last)


def logprob(text: str) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(text=text, bytes=text.encode(), logprob=-0.5)


def test_log_probabilities_are_those_of_the_text() -> None:
    events, response = stream(
        [
            chunk(reasoning="Hm", token_ids=[1], reasoning_tokens=1, logprobs=[logprob("Hm")]),
            chunk(token_ids=[2], logprobs=[logprob("\ufffd")]),
            chunk(text="Hi", token_ids=[3], logprobs=[logprob("Hi")]),
            chunk(token_ids=[4], logprobs=[logprob("!")]),
            chunk(
                text="So",
                token_ids=[5, 6],
                logprobs=[logprob("So"), logprob("<call>")],
                tool_calls=[ToolCallDelta(index=0, id="a", name="f", arguments="{}")],
            ),
            finished(),
        ]
    )
    message = response["output"][1]["content"][0]
    assert [token["token"] for token in message["logprobs"]] == ["\ufffd", "Hi", "!", "So"]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    streamed = [token for event in deltas for token in event["logprobs"]]
    assert streamed == message["logprobs"]
    assert set(streamed[0]) == {"token", "logprob", "bytes", "top_logprobs"}


def test_a_line_break_of_any_kind_stays_within_its_event() -> None:
    events, _ = stream([chunk(text="a\n\u2028\u0085\r\nb"), finished()])
    assert events[4]["delta"] == "a\n\u2028\u0085\r\nb"


# Texts with what JSON and server-sent events have to escape.
TEXTS = st.text('ab"\\\n\u2028é😀', max_size=4)


@st.composite
def worker_events(draw: st.DrawFn) -> list[SequenceEvent]:
    """Chunks in any order; calls in the order of their indices, as the contract has them."""
    events = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "call", "more"]), max_size=12)):
        text = draw(TEXTS)
        if kind == "text":
            events.append(chunk(text=text, token_ids=[1]))
        elif kind == "reasoning":
            events.append(chunk(reasoning=text, token_ids=[1], reasoning_tokens=1))
        elif kind == "call":
            events.append(call(calls, text, call_id=f"call_{calls}", name="f"))
            calls += 1
        elif events and events[-1].chunk.tool_calls:
            events.append(call(calls - 1, text))
    return [*events, finished(draw(st.sampled_from([STOP, LENGTH])))]


@given(worker_events(), st.booleans(), st.integers(1, 4))
def test_any_stream_is_one_that_clients_can_follow(
    events: list[SequenceEvent], shows_summary: bool, at_once: int
) -> None:
    texts = _texts(event.chunk for event in events)
    batches = [events[place : place + at_once] for place in range(0, len(events), at_once)]
    merged = [event for batch in batches for event in merge(batch)]
    told, response = stream(merged, shows_summary=shows_summary)

    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    for event in told:
        STREAM_EVENT.validate_python(event)
    Response.model_validate(response)
    assert told[-1]["type"] in ("response.completed", "response.incomplete")

    follower = _Follower()
    for event in told[2:-1]:
        follower.take(event)
    assert follower.open is None
    assert follower.items == response["output"]
    assert _output_texts(response["output"]) == texts


def _texts(chunks: Iterable[Chunk]) -> dict[str, str]:
    found = {"reasoning": "", "message": "", "function_call": ""}
    for each in chunks:
        found["reasoning"] += each.reasoning
        found["message"] += each.text
        found["function_call"] += "".join(delta.arguments for delta in each.tool_calls)
    return found


def _output_texts(output: list[dict[str, Any]]) -> dict[str, str]:
    found = {"reasoning": "", "message": "", "function_call": ""}
    for item in output:
        parts = (*item.get("content", ()), *item.get("summary", ()))
        text = "".join(part["text"] for part in parts)
        found[item["type"]] += item.get("arguments", "") or text
    return found


class _Follower:
    """A client that builds the items from the deltas, and is strict about what may follow what."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None
        self._text = ""
        self._said = Counter[str]()

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"].removeprefix("response.")
        assert event["output_index"] == len(self.items)
        if kind == "output_item.added":
            assert self.open is None
            self.open, self._text, self._said = event["item"], "", Counter()
            return
        assert self.open is not None
        assert event.get("item_id", self.open["id"]) == self.open["id"]
        self._said[kind.rpartition(".")[2]] += 1
        if kind.endswith("delta"):
            assert "done" not in self._said
            self._text += event["delta"]
        elif kind == "output_item.done":
            assert event["item"]["id"] == self.open["id"]
            self.items.append(event["item"])
            self.open = None
        elif kind.endswith("done"):
            part = event.get("part", {})
            assert event.get("arguments", event.get("text", part.get("text"))) == self._text
