"""What is printed is OpenAI's JSON, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.discovery.fleet import Model
from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.stream import ChatStream
from services.gateway.openai.completions.printing import CompletionBody, CompletionStream
from services.gateway.openai.envelope import Envelope, fingerprint, new_envelope
from services.gateway.openai.json_text import quoted
from services.gateway.openai.logprobs import IMPOSSIBLE_LOGPROB
from tokenmesh.mesh.v1 import chat_pb2, generation_pb2
from tokenmesh.worker.v1.worker_pb2 import Chunk, Finished, SequenceEvent, Started

FINGERPRINT = fingerprint("org/m", "r1")
ENVELOPE = Envelope("chatcmpl-1", 1_700_000_000, "org/m", FINGERPRINT)
HEAD = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"org/m",'
    f'"system_fingerprint":"{FINGERPRINT}","choices":'
)


def started(choice: int = 0) -> SequenceEvent:
    return SequenceEvent(choice_index=choice, started=Started(prompt_tokens=5))


def text(value: str, choice: int = 0) -> SequenceEvent:
    return SequenceEvent(choice_index=choice, chunk=Chunk(text=value, token_ids=[1]))


def finished(
    choice: int = 0,
    reason: generation_pb2.FinishReason.ValueType = generation_pb2.FINISH_REASON_STOP,
) -> SequenceEvent:
    usage = generation_pb2.Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=4)
    return SequenceEvent(choice_index=choice, finished=Finished(reason=reason, usage=usage))


def logprob(token: str, value: float, **tops: float) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(
        text=token,
        bytes=token.encode(),
        logprob=value,
        top=[
            generation_pb2.TokenLogprob(text=top, bytes=top.encode(), logprob=top_value)
            for top, top_value in tops.items()
        ],
    )


def events_of(stream: bytes) -> list[Any]:
    lines = [line for line in stream.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_a_chat_stream_byte_for_byte() -> None:
    stream = ChatStream(ENVELOPE, AnswerOptions())
    assert stream.print(0, [started()]) == b""
    assert stream.print(0, [text('Say "hé"\n')]).decode() == (
        f'data: {HEAD}[{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},'
        '"logprobs":null,"finish_reason":null}]}\n\n'
        f'data: {HEAD}[{{"index":0,"delta":{{"content":"Say \\"hé\\"\\n"}},"logprobs":null,'
        '"finish_reason":null}]}\n\n'
    )
    assert stream.print(0, [text("")]) == b""
    assert stream.print(0, [finished()]).decode() == (
        f'data: {HEAD}[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}\n\n'
    )
    assert stream.end() == b"data: [DONE]\n\n"


def test_usage_comes_last_and_is_null_before() -> None:
    stream = ChatStream(ENVELOPE, AnswerOptions(usage=True))
    printed = stream.print(0, [started(), text("a"), finished()]) + stream.end()
    *chunks, last = events_of(printed)
    assert [chunk["usage"] for chunk in chunks] == [None, None, None]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def test_each_choice_opens_with_its_role_and_prompt_tokens_count_once() -> None:
    stream = ChatStream(ENVELOPE, AnswerOptions(usage=True))
    events = [started(0), started(1), text("a", 1), text("b", 0), finished(1), finished(0)]
    *chunks, last = events_of(stream.print(0, events) + stream.end())
    deltas = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in chunks]
    role = {"role": "assistant", "content": "", "refusal": None}
    assert deltas == [
        *((1, role), (1, {"content": "a"}), (0, role), (0, {"content": "b"})),
        *((1, {}), (0, {})),
    ]
    assert last["usage"]["prompt_tokens"] == 5
    assert last["usage"]["completion_tokens"] == 4


def test_a_choice_without_text_still_has_a_role() -> None:
    stream = ChatStream(ENVELOPE, AnswerOptions())
    reason = generation_pb2.FINISH_REASON_LENGTH
    chunks = events_of(stream.print(0, [started(), finished(0, reason)]) + stream.end())
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[1]["choices"][0]["finish_reason"] == "length"


def test_tool_calls_and_reasoning() -> None:
    first = Chunk(
        reasoning="hm",
        tool_calls=[chat_pb2.ToolCallDelta(index=0, id="c", name="f", arguments='{"a"')],
        output_bytes=20,
    )
    more = chat_pb2.ToolCallDelta(index=0, arguments=":1}")
    second = Chunk(tool_calls=[more], output_bytes=3)
    events = [
        SequenceEvent(chunk=first),
        SequenceEvent(chunk=second),
        finished(0, generation_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    stream = ChatStream(ENVELOPE, AnswerOptions())
    printed = events_of(stream.print(0, events) + stream.end())
    *told, end = [chunk["choices"][0] for chunk in printed]
    opening = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert [each["delta"] for each in told] == [
        {"role": "assistant", "content": None, "refusal": None},
        {"reasoning_content": "hm"},
        {"tool_calls": [{"index": 0, **opening}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    ]
    assert end["finish_reason"] == "tool_calls"

    body = ChatBody(ENVELOPE, AnswerOptions())
    body.collect(0, events)
    assert json.loads(body.print())["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }


def test_what_is_held_back_opens_no_message() -> None:
    stream = ChatStream(ENVELOPE, AnswerOptions())
    held = SequenceEvent(chunk=Chunk(token_ids=[1], output_bytes=0))
    assert stream.print(0, [started(), held]) == b""
    shown = SequenceEvent(chunk=Chunk(text="<a", token_ids=[2], output_bytes=2))
    printed = events_of(stream.print(0, [shown]) + stream.end())
    assert [each["choices"][0]["delta"]["content"] for each in printed] == ["", "<a"]


def test_logprobs_of_a_call_come_once() -> None:
    call = chat_pb2.ToolCallDelta(index=0, id="c", name="f", arguments="{}")
    chunk = Chunk(token_ids=[1], logprobs=[logprob("x", -0.5)], tool_calls=[call], output_bytes=9)
    stream = ChatStream(ENVELOPE, AnswerOptions(top_logprobs=0))
    printed = events_of(stream.print(0, [SequenceEvent(chunk=chunk)]) + stream.end())
    told = [each["choices"][0]["logprobs"] for each in printed]
    assert [len(each["content"]) for each in told if each] == [1]


def test_logprobs_of_what_is_held_back_bring_no_content() -> None:
    held = Chunk(token_ids=[1], logprobs=[logprob("<", -0.5)], output_bytes=0)
    stream = ChatStream(ENVELOPE, AnswerOptions(top_logprobs=0))
    printed = events_of(stream.print(0, [SequenceEvent(chunk=held)]) + stream.end())
    told = [each["choices"][0]["delta"] for each in printed]
    assert told == [{"role": "assistant", "content": None, "refusal": None}, {}]


def test_chat_logprobs() -> None:
    chunk = Chunk(text="é", token_ids=[1], logprobs=[logprob("é", -0.5, é=-0.5, e=float("-inf"))])
    events = [SequenceEvent(chunk=chunk), finished()]
    expected = {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                    {"token": "e", "logprob": IMPOSSIBLE_LOGPROB, "bytes": [101]},
                ],
            }
        ],
        "refusal": None,
    }
    stream = ChatStream(ENVELOPE, AnswerOptions())
    chunks = events_of(stream.print(0, events) + stream.end())
    assert chunks[1]["choices"][0]["logprobs"] == expected
    body = ChatBody(ENVELOPE, AnswerOptions(top_logprobs=2))
    body.collect(0, events)
    assert json.loads(body.print())["choices"][0]["logprobs"] == expected


def test_a_token_without_text_still_has_its_logprob() -> None:
    chunk = Chunk(token_ids=[1], logprobs=[logprob("\ufffd", -0.5)])
    stream = ChatStream(ENVELOPE, AnswerOptions())
    events = events_of(stream.print(0, [SequenceEvent(chunk=chunk), finished()]) + stream.end())
    assert events[1]["choices"][0]["delta"] == {"content": ""}
    assert len(events[1]["choices"][0]["logprobs"]["content"]) == 1


def test_a_chat_body_byte_for_byte() -> None:
    body = ChatBody(ENVELOPE, AnswerOptions())
    body.collect(0, [started(), text("Hel")])
    body.collect(0, [text("lo"), finished()])
    assert body.print().decode() == (
        '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"org/m",'
        f'"system_fingerprint":"{FINGERPRINT}","choices":[{{"index":0,"message":{{'
        '"role":"assistant","content":"Hello","refusal":null,"annotations":[]},"logprobs":null,'
        '"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,'
        '"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
        '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}'
    )


def test_completion_choices_count_over_prompts() -> None:
    body = CompletionBody(ENVELOPE, AnswerOptions(), choices_per_prompt=2)
    body.collect(1, [text("d", 1), text("c", 0), finished(0), finished(1)])
    body.collect(0, [text("a", 0), text("b", 1), finished(0), finished(1)])
    answer = json.loads(body.print())
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        *((0, "a"), (1, "b")),
        *((2, "c"), (3, "d")),
    ]
    assert answer["object"] == "text_completion"
    assert answer["usage"]["prompt_tokens"] == 10
    assert answer["usage"]["completion_tokens"] == 8


def test_a_completion_stream_byte_for_byte() -> None:
    stream = CompletionStream(ENVELOPE, AnswerOptions(top_logprobs=2), choices_per_prompt=1)
    head = HEAD.replace("chat.completion.chunk", "text_completion")
    printed = stream.print(1, [started(), text("a"), finished()]) + stream.end()
    assert printed.decode() == (
        f'data: {head}[{{"index":1,"text":"a","logprobs":null,"finish_reason":null}}]}}\n\n'
        f'data: {head}[{{"index":1,"text":"","logprobs":null,"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_completion_logprobs_have_offsets_over_the_whole_choice() -> None:
    chunks = [
        Chunk(text="ab", token_ids=[1], logprobs=[logprob("ab", -1.0, ab=-1.0)]),
        Chunk(text="c", token_ids=[2], logprobs=[logprob("c", -2.0, c=-2.0)]),
    ]
    stream = CompletionStream(ENVELOPE, AnswerOptions(top_logprobs=2), choices_per_prompt=1)
    printed = [stream.print(0, [SequenceEvent(chunk=chunk)]) for chunk in chunks]
    first, second = (json.loads(each[6:])["choices"][0]["logprobs"] for each in printed)
    assert first == {
        "text_offset": [0],
        "token_logprobs": [-1.0],
        "tokens": ["ab"],
        "top_logprobs": [{"ab": -1.0}],
    }
    assert second["text_offset"] == [2]


def test_the_fingerprint_tells_weights_apart() -> None:
    made = [
        new_envelope("cmpl", 1.0, "m", Model("m", revision=revision, dtype=dtype)).fingerprint
        for revision, dtype in (("1", "a"), ("2", "a"), ("1", "b"), ("1", "a"))
    ]
    assert len(set(made)) == 3
    assert made[0] == made[3]


@pytest.mark.parametrize("value", ["", 'a"b\\c', "\x00\x1f", "é漢😀", "a\u2028b\u2029c\x85d"])
def test_quoted_is_json_on_one_line(value: str) -> None:
    printed = quoted(value)
    assert json.loads(printed) == value
    assert len(printed.splitlines()) == 1


def prompt_started() -> SequenceEvent:
    told = [logprob("He", float("nan")), logprob("llo", -1.5, llo=-1.5, y=-2.0)]
    return SequenceEvent(started=Started(prompt_tokens=2, prompt_logprobs=told))


ECHOED = {
    "tokens": ["He", "llo", " you"],
    "token_logprobs": [None, -1.5, -0.25],
    "top_logprobs": [None, {"llo": -1.5, "y": -2.0}, {" you": -0.25}],
    "text_offset": [0, 2, 5],
}


def test_an_echo_with_log_probabilities_begins_with_null() -> None:
    body = CompletionBody(ENVELOPE, AnswerOptions(top_logprobs=2, echo=True))
    token = Chunk(text=" you", token_ids=[1], logprobs=[logprob(" you", -0.25, **{" you": -0.25})])
    events = [prompt_started(), text("Hello"), SequenceEvent(chunk=token), finished()]
    body.collect(0, events)
    (choice,) = json.loads(body.print())["choices"]
    assert choice["text"] == "Hello you"
    assert choice["logprobs"] == ECHOED


def test_a_streamed_echo_brings_the_prompts_log_probabilities_with_its_text() -> None:
    stream = CompletionStream(ENVELOPE, AnswerOptions(top_logprobs=2), choices_per_prompt=1)
    token = Chunk(text=" you", token_ids=[1], logprobs=[logprob(" you", -0.25, **{" you": -0.25})])
    events = [prompt_started(), text("Hello"), SequenceEvent(chunk=token), finished()]
    chunks = events_of(stream.print(0, events) + stream.end())
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert told[2] is None
    assert {name: told[0][name] + told[1][name] for name in ECHOED} == ECHOED
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello", " you", ""]


@pytest.mark.parametrize(
    ("first", "offsets"), [("<s>", [0, 0, 5]), (" Hello", [0, 5, 10]), ("Hello", [0, 5, 10])]
)
def test_offsets_count_what_the_echo_shows(first: str, offsets: list[int]) -> None:
    second = "Hello" if first == "<s>" else " dear"
    echo = "Hello" if first == "<s>" else "Hello dear"
    told = [logprob(first, float("nan")), logprob(second, -1.0), logprob("!", -1.0)]
    start = SequenceEvent(started=Started(prompt_tokens=2, prompt_logprobs=told[:2]))
    token = Chunk(text="!", token_ids=[1], logprobs=told[2:])
    body = CompletionBody(ENVELOPE, AnswerOptions(top_logprobs=2, echo=True))
    body.collect(0, [start, text(echo), SequenceEvent(chunk=token), finished()])
    (choice,) = json.loads(body.print())["choices"]
    assert choice["logprobs"]["text_offset"] == offsets
    assert choice["text"][offsets[2]] == "!"
