"""What clients may ask to be told beside the text, as it is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.stream import ChatStream
from services.gateway.openai.completions.printing import CompletionBody, CompletionStream
from services.gateway.openai.envelope import Envelope
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1.worker_pb2 import Chunk, Finished, SequenceEvent, Started

ENVELOPE = Envelope("chatcmpl-1", 1_700_000_000, "org/m", "fp_1")


def token(token_id: int, text: str, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(token_id=token_id, text=text, bytes=text.encode(), logprob=logprob, top=top)


def started(*prompt_logprobs: TokenLogprob, choice: int = 0) -> SequenceEvent:
    told = Started(prompt_tokens=2, cached_tokens=1, prompt_logprobs=prompt_logprobs)
    return SequenceEvent(choice_index=choice, started=told)


def text(value: str, *token_ids: int, choice: int = 0, **fields: Any) -> SequenceEvent:
    chunk = Chunk(text=value, token_ids=token_ids, **fields)
    return SequenceEvent(choice_index=choice, chunk=chunk)


def finished(choice: int = 0, **stopped_by: Any) -> SequenceEvent:
    usage = generation_pb2.Usage(prompt_tokens=2, completion_tokens=2, cached_tokens=1)
    reason = generation_pb2.FINISH_REASON_STOP
    return SequenceEvent(
        choice_index=choice, finished=Finished(reason=reason, usage=usage, **stopped_by)
    )


def chat_chunks(stream: ChatStream | CompletionStream, *events: SequenceEvent) -> list[Any]:
    printed = (stream.print(0, events) + stream.end()).decode()
    *chunks, done, _ = printed.split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(chunk[6:]) for chunk in chunks]


def chat_answer(options: AnswerOptions, *events: SequenceEvent, **fields: Any) -> Any:
    body = ChatBody(ENVELOPE, options, **fields)
    body.collect(0, events)
    return json.loads(body.print())


def completion_answer(options: AnswerOptions, *events: SequenceEvent, **fields: Any) -> Any:
    body = CompletionBody(ENVELOPE, options, **fields)
    body.collect(0, events)
    return json.loads(body.print())


def test_the_usage_so_far_is_in_every_chunk() -> None:
    options = AnswerOptions(usage=True, continuous_usage=True)
    events = (started(), text("a", 1), text("b", 2, 3), finished())
    for stream in (
        ChatStream(ENVELOPE, options),
        CompletionStream(ENVELOPE, options, choices_per_prompt=1),
    ):
        *chunks, last = chat_chunks(stream, *events)
        counted = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counted[-3:] == [1, 3, 3]
        for chunk in chunks:
            assert chunk["usage"]["prompt_tokens"] == 2
            assert chunk["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
        assert last["choices"] == []


def test_a_service_tier_is_told_where_one_was_asked_for() -> None:
    envelope = Envelope("chatcmpl-1", 1, "m", "fp_1", "default")
    chunks = chat_chunks(ChatStream(envelope, AnswerOptions()), started(), finished())
    assert {chunk["service_tier"] for chunk in chunks} == {"default"}
    assert "service_tier" not in ENVELOPE.opening("chat.completion")


def test_an_echo_opens_every_choice_with_what_the_answer_goes_on_from() -> None:
    events = (text("lo", 1), text("p", 1, choice=1), finished(), finished(1))
    chunks = chat_chunks(ChatStream(ENVELOPE, AnswerOptions(echo=True), echo="Hel"), *events)
    for index, whole in enumerate(("Hello", "Help")):
        deltas = [
            choice["delta"].get("content", "")
            for chunk in chunks
            for choice in chunk["choices"]
            if choice["index"] == index
        ]
        assert "".join(deltas) == whole
    answer = chat_answer(AnswerOptions(echo=True), *events, echo="Hel")
    assert [each["message"]["content"] for each in answer["choices"]] == ["Hello", "Help"]


def test_reasoning_may_be_left_out() -> None:
    events = (text("", 1, reasoning="hm"), text("a", 2), finished())
    (choice,) = chat_answer(AnswerOptions(reasoning=False), *events)["choices"]
    assert "reasoning_content" not in choice["message"]
    chunks = chat_chunks(ChatStream(ENVELOPE, AnswerOptions(reasoning=False)), *events)
    assert len(chunks) == 3
    assert not any("reasoning_content" in json.dumps(chunk) for chunk in chunks)
    assert "hm" in json.dumps(chat_chunks(ChatStream(ENVELOPE, AnswerOptions()), *events))


@pytest.mark.parametrize(
    ("stopped_by", "told"),
    [
        ({}, {}),
        ({"stop_string": "\n"}, {"stop_reason": "\n"}),
        ({"stop_token_id": 0}, {"stop_reason": 0}),
    ],
)
def test_what_the_clients_own_stops_ended(stopped_by: Any, told: dict[str, Any]) -> None:
    events = (text("a", 1), finished(**stopped_by))
    off = AnswerOptions()
    for choice in (
        chat_answer(off, *events)["choices"][0],
        completion_answer(off, *events)["choices"][0],
        chat_chunks(ChatStream(ENVELOPE, off), *events)[-1]["choices"][0],
        chat_chunks(CompletionStream(ENVELOPE, off, choices_per_prompt=1), *events)[-1]["choices"][
            0
        ],
    ):
        assert choice["finish_reason"] == "stop"
        assert {name: choice[name] for name in choice if name == "stop_reason"} == told


def test_token_ids_of_the_prompt_and_of_the_output() -> None:
    options = AnswerOptions(token_ids=True)
    events = (text("a", 5), text("", 6), finished())
    answer = chat_answer(options, *events, prompt_tokens={0: [7, 8]})
    assert answer["prompt_token_ids"] == [7, 8]
    assert answer["choices"][0]["token_ids"] == [5, 6]
    stream = ChatStream(ENVELOPE, options, prompt_tokens={0: [7, 8]})
    chunks = chat_chunks(stream, *events)
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[7, 8], None, None, None]
    told = [chunk["choices"][0].get("token_ids") for chunk in chunks]
    assert told == [None, [5], [6], None]

    (choice,) = completion_answer(options, *events, prompt_tokens={0: [7, 8]})["choices"]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([7, 8], [5, 6])
    completion = CompletionStream(
        ENVELOPE, options, choices_per_prompt=1, prompt_tokens={0: [7, 8]}
    )
    choices = [chunk["choices"][0] for chunk in chat_chunks(completion, *events)]
    assert [each.get("prompt_token_ids") for each in choices] == [[7, 8], None, None]
    assert [each.get("token_ids") for each in choices] == [[5], [6], None]


def test_tokens_may_be_named_by_their_ids() -> None:
    said = token(5, "\ufffd", -1.0, token(6, "b", -0.5))
    events = (text("a", 5, logprobs=[said]), finished())
    options = AnswerOptions(top_logprobs=1, tokens_as_ids=True)
    (entry,) = chat_answer(options, *events)["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["top_logprobs"][0]["token"]) == ("token_id:5", "token_id:6")
    logprobs = completion_answer(options, *events)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["token_id:5"]
    assert logprobs["top_logprobs"] == [{"token_id:6": -0.5, "token_id:5": -1.0}]


def test_the_chosen_token_is_told_with_the_likeliest() -> None:
    said = token(5, "a", -3.0, token(6, "b", -0.5), token(7, "c", -1.0))
    events = (text("a", 5, logprobs=[said]), finished())
    for count, told in ((0, {"a": -3.0}), (1, {"b": -0.5, "a": -3.0})):
        options = AnswerOptions(top_logprobs=count)
        logprobs = completion_answer(options, *events)["choices"][0]["logprobs"]
        assert logprobs["top_logprobs"] == [told]


def test_of_tokens_that_look_alike_the_likeliest_is_told() -> None:
    said = token(5, "\ufffd", -3.0, token(6, "\ufffd", -0.5), token(7, "\ufffd", -1.0))
    printed = CompletionBody(ENVELOPE, AnswerOptions(top_logprobs=2))
    printed.collect(0, [text("a", 5, logprobs=[said]), finished()])
    assert printed.print().count(b'"\xef\xbf\xbd":') == 1
    logprobs = json.loads(printed.print())["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] == [{"\ufffd": -0.5}]


def test_log_probabilities_of_the_prompt_as_vllm_has_them() -> None:
    told = (
        token(1, "He", float("nan")),
        token(2, "llo", -2.0, token(3, "y", -0.5), token(2, "llo", -2.0)),
        token(4, "!", float("-inf"), token(3, "y", -0.25)),
    )
    expected = [
        None,
        {
            "2": {"logprob": -2.0, "rank": 2, "decoded_token": "llo"},
            "3": {"logprob": -0.5, "rank": 1, "decoded_token": "y"},
        },
        {
            "4": {"logprob": -9999.0, "rank": None, "decoded_token": "!"},
            "3": {"logprob": -0.25, "rank": 1, "decoded_token": "y"},
        },
    ]
    options = AnswerOptions(prompt_logprobs=True)
    events = (started(*told), text("a", 5), finished())
    assert chat_answer(options, *events)["prompt_logprobs"] == expected
    (choice,) = completion_answer(options, *events)["choices"]
    assert choice["prompt_logprobs"] == expected
    assert choice["logprobs"] is None


def test_without_an_echo_the_prompts_log_probabilities_are_not_among_the_outputs() -> None:
    options = AnswerOptions(top_logprobs=0, prompt_logprobs=True)
    events = (
        started(token(1, "He", float("nan"))),
        text("a", 5, logprobs=[token(5, "a", -1.0)]),
        finished(),
    )
    (choice,) = completion_answer(options, *events)["choices"]
    assert choice["logprobs"]["tokens"] == ["a"]
