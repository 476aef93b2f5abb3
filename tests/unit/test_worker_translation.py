"""Between the proto's frames and the engine's requests and events."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from services.mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    MeshError,
    OutOfMemoryError,
)
from services.mesh.status import from_status
from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.engines.base import (
    ChatPrompt,
    Chunk,
    EngineRequest,
    Failed,
    Finished,
    FinishReason,
    OutputSoFar,
    Sampling,
    Started,
    Timing,
    TokenLogprob,
)
from services.worker.engines.forms import Form, Grammar, Json, Literal, OneOf, Regex
from services.worker.parsing.parsed import ParsedChunk, ToolCallPiece
from services.worker.translation.events import write_event
from services.worker.translation.requests import engine_request, sampling_fields
from services.worker.translation.tools import tool_use
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2


def start(**fields: Any) -> worker_pb2.Start:
    return json_format.ParseDict({"model": "m", "text": "hi"} | fields, worker_pb2.Start())


def chat(**fields: Any) -> worker_pb2.Start:
    return json_format.ParseDict({"model": "m", "chat": fields}, worker_pb2.Start())


def translate(frame: worker_pb2.Start, *, may_bring_template: bool = False) -> EngineRequest:
    return engine_request(
        frame, "key", now_s=100.0, credit_tokens=7, may_bring_template=may_bring_template
    )


def chat_prompt(frame: worker_pb2.Start, *, may_bring_template: bool = False) -> ChatPrompt:
    prompt = translate(frame, may_bring_template=may_bring_template).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def test_every_field_arrives() -> None:
    request = translate(
        start(
            request_id="r",
            time_left="2.5s",
            priority=-3,
            echo=True,
            output_so_far=[
                {"choice_index": 1, "token_ids": [4, 5], "next_number": 3, "delivered_bytes": 9}
            ],
        )
    )
    assert request == EngineRequest(
        key="key",
        request_id="r",
        model="m",
        prompt="hi",
        sampling_fields={},
        deadline_s=102.5,
        priority=-3,
        credit_tokens=7,
        echo=True,
        output_so_far={1: OutputSoFar((4, 5), 3, 9)},
    )


def test_sampling_holds_what_was_set_and_no_more() -> None:
    sampling = generation_pb2.SamplingParameters(
        temperature=0.0,
        max_tokens=0,
        ignore_eos=False,
        stop=["a", "b"],
        stop_token_ids=[3],
        logit_bias={7: -1.5},
    )
    assert sampling_fields(sampling) == {
        "temperature": 0.0,
        "max_tokens": 0,
        "ignore_eos": False,
        "stop": ("a", "b"),
        "stop_token_ids": (3,),
        "logit_bias": {7: -1.5},
    }


def test_engines_know_every_sampling_field_by_its_name_in_the_proto() -> None:
    names = {each.name for each in generation_pb2.SamplingParameters.DESCRIPTOR.fields}
    assert names == set(Sampling.__dataclass_fields__)


@pytest.mark.parametrize(
    ("constraint", "translated"),
    [
        ({"json_object": {}}, Json('{"type": "object"}')),
        ({"json_schema": {"name": "n", "schema": "{}"}}, Json("{}", strict=False)),
        ({"json_schema": {"schema": "{}", "strict": True}}, Json("{}", strict=True)),
        ({"regex": "a+"}, Regex("a+")),
        ({"grammar": "root ::= x"}, Grammar("root ::= x")),
        ({"choices": {"values": ["a", "b"]}}, OneOf((Literal("a"), Literal("b")))),
    ],
)
def test_a_constraint_becomes_a_form(constraint: dict[str, Any], translated: Form) -> None:
    sampling = json_format.ParseDict(
        {"constraint": constraint}, generation_pb2.SamplingParameters()
    )
    assert sampling_fields(sampling) == {"constraint": translated}


def test_a_constraint_without_a_form_is_refused() -> None:
    sampling = generation_pb2.SamplingParameters(constraint=generation_pb2.Constraint())
    with pytest.raises(InvalidRequestError) as refused:
        sampling_fields(sampling)
    assert refused.value.field == "sampling.constraint"


def test_token_ids_are_a_prompt() -> None:
    frame = worker_pb2.Start(model="m", token_ids=worker_pb2.TokenIds(values=[1, 2]))
    assert translate(frame).prompt == (1, 2)


def test_a_conversation_becomes_what_templates_take() -> None:
    prompt = chat_prompt(
        chat(
            messages=[
                {"role": "ROLE_SYSTEM", "content": [{"text": "one"}, {"text": "two"}]},
                {
                    "role": "ROLE_USER",
                    "name": "Ann",
                    "content": [
                        {"text": "see"},
                        {"image": {"url": "https://x", "detail": "IMAGE_DETAIL_LOW"}},
                        {"image": {"media_type": "image/png", "data": "AAAA"}},
                    ],
                },
                {
                    "role": "ROLE_ASSISTANT",
                    "reasoning": "hm",
                    "tool_calls": [{"id": "c", "name": "f", "arguments": "{}"}],
                },
                {"role": "ROLE_TOOL", "tool_call_id": "c", "content": [{"text": "42"}]},
            ],
            tools=[{"name": "f", "description": "d", "parameters": '{"maximum": 3, "x": [0.5]}'}],
            reasoning_effort="REASONING_EFFORT_LOW",
            chat_template_arguments={"thinking": True},
        )
    )
    assert prompt.messages == [
        {"role": "system", "content": "one\ntwo"},
        {
            "role": "user",
            "name": "Ann",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c"},
    ]
    (tool,) = prompt.tools
    assert tool["function"]["parameters"] == {"maximum": 3, "x": [0.5]}
    assert isinstance(tool["function"]["parameters"]["maximum"], int)
    assert prompt.template_arguments == {"thinking": True, "reasoning_effort": "low"}
    assert prompt.add_generation_prompt


USER = {"role": "ROLE_USER", "content": [{"text": "hi"}]}


def test_what_was_parsed_is_told() -> None:
    pieces = (ToolCallPiece(0, "call_1", "f", "{"), ToolCallPiece(1, None, None, "}"))
    written = worker_pb2.SequenceEvent()
    parsed = ParsedChunk("a", (1, 2), (), "hm", pieces, output_bytes=9, reasoning_tokens=1)
    write_event(parsed, written)
    chunk = written.chunk
    assert (chunk.text, chunk.reasoning, list(chunk.token_ids)) == ("a", "hm", [1, 2])
    assert (chunk.output_bytes, chunk.reasoning_tokens) == (9, 1)
    first, second = chunk.tool_calls
    assert (first.index, first.id, first.name, first.arguments) == (0, "call_1", "f", "{")
    assert (second.index, second.arguments) == (1, "}")
    assert not second.HasField("id")
    assert not second.HasField("name")


def test_a_final_message_may_be_continued() -> None:
    prompt = chat_prompt(chat(messages=[USER], continue_final_message=True))
    assert prompt.continue_final_message
    assert not prompt.add_generation_prompt


def test_no_tools_are_shown_where_none_may_be_called() -> None:
    tools = [{"name": "f"}]
    none = {"mode": "TOOL_CHOICE_MODE_NONE"}
    assert chat_prompt(chat(messages=[USER], tools=tools, tool_choice=none)).tools == []


TOOLS = [{"name": "f", "parameters": '{"type": "object"}', "strict": True}, {"name": "g"}]
F, G = Tool("f", '{"type": "object"}', strict=True), Tool("g", "")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ToolUse()),
        ({"tools": TOOLS}, ToolUse((F, G))),
        ({"tools": TOOLS, "tool_choice": {"mode": "TOOL_CHOICE_MODE_NONE"}}, ToolUse()),
        (
            {"tools": TOOLS, "tool_choice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"}},
            ToolUse((F, G), is_required=True),
        ),
        (
            {"tools": TOOLS, "tool_choice": {"name": "g"}},
            ToolUse((G,), is_required=True, is_named=True),
        ),
        (
            {"tools": TOOLS, "parallel_tool_calls": False},
            ToolUse((F, G), is_parallel=False),
        ),
    ],
    ids=["without", "auto", "none", "required", "named", "one call"],
)
def test_what_may_be_called(fields: dict[str, Any], expected: ToolUse) -> None:
    frame = chat(messages=[USER], **fields)
    assert tool_use(frame.chat) == expected
    # The prompt is the same whatever is chosen among the tools.
    shown = [each["function"]["name"] for each in chat_prompt(frame).tools]
    assert shown == ([] if expected == ToolUse() else ["f", "g"])


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ({"name": "f"}, "prompt.tool_choice.name"),
        ({"mode": "TOOL_CHOICE_MODE_REQUIRED"}, "prompt.tool_choice"),
    ],
)
def test_a_choice_without_its_tool_is_refused(choice: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        tool_use(chat(messages=[USER], tool_choice=choice).chat)
    assert refused.value.field == field


def test_a_template_of_the_request_needs_permission() -> None:
    frame = chat(messages=[USER], chat_template="{{ messages }}")
    assert chat_prompt(frame, may_bring_template=True).chat_template == "{{ messages }}"
    with pytest.raises(InvalidRequestError) as caught:
        translate(frame)
    assert caught.value.field == "prompt.chat_template"


@pytest.mark.parametrize(
    ("frame", "kind", "field"),
    [
        (start(model=""), InvalidRequestError, "model"),
        (worker_pb2.Start(model="m"), InvalidRequestError, "prompt"),
        (start(time_left="0s"), DeadlineError, None),
        (chat(messages=[]), InvalidRequestError, "prompt.messages"),
        (chat(messages=[USER, {}]), InvalidRequestError, "prompt.messages[1].role"),
        (
            chat(messages=[{"role": "ROLE_USER", "content": [{}]}]),
            InvalidRequestError,
            "prompt.messages[0].content[0]",
        ),
        (
            chat(messages=[{"role": "ROLE_TOOL"}]),
            InvalidRequestError,
            "prompt.messages[0].tool_call_id",
        ),
        (
            chat(messages=[USER], continue_final_message=True, add_generation_prompt=True),
            InvalidRequestError,
            "prompt.continue_final_message",
        ),
        (
            start(output_so_far=[{"choice_index": 1}, {"choice_index": 1}]),
            InvalidRequestError,
            "output_so_far.choice_index",
        ),
        (
            start(output_so_far=[{"next_number": 2**32 - 1}]),
            InvalidRequestError,
            "output_so_far.next_number",
        ),
    ],
)
def test_what_is_wrong_is_named(
    frame: worker_pb2.Start, kind: type[MeshError], field: str | None
) -> None:
    with pytest.raises(kind) as caught:
        translate(frame)
    assert caught.value.field == field


def written(event: Started | Chunk | Finished | Failed) -> worker_pb2.SequenceEvent:
    target = worker_pb2.SequenceEvent()
    write_event(event, target)
    return target


def test_started_and_chunk() -> None:
    assert written(Started(9, 4)).started == worker_pb2.Started(prompt_tokens=9, cached_tokens=4)
    top = TokenLogprob(6, "b", b"b", -2.0)
    chunk = written(Chunk("a", (5,), (TokenLogprob(5, "a", b"a", -0.5, (top,)),))).chunk
    assert (chunk.text, list(chunk.token_ids)) == ("a", [5])
    (logprob,) = chunk.logprobs
    assert (logprob.token_id, logprob.bytes, logprob.logprob) == (5, b"a", -0.5)
    assert [each.token_id for each in logprob.top] == [6]


def test_a_chunk_without_text_is_still_a_chunk() -> None:
    assert written(Chunk("", ())).WhichOneof("event") == "chunk"
    assert written(Started(0)).WhichOneof("event") == "started"


@pytest.mark.parametrize("reason", FinishReason)
def test_finished(reason: FinishReason) -> None:
    event = Finished(reason, 3, 4, 1, Timing(0.25, 0.5, 1.5), stop_string="x")
    finished = written(event).finished
    name = generation_pb2.FinishReason.Name(finished.reason)
    assert name == f"FINISH_REASON_{reason.value.upper()}"
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (3, 4)
    assert finished.usage.cached_tokens == 1
    assert finished.timing.queue.ToMilliseconds() == 250
    assert finished.timing.decode.ToMilliseconds() == 1500
    assert finished.stop_string == "x"


def test_a_stop_token_and_an_end_of_the_model_are_told_apart() -> None:
    timing = Timing(0, 0, 0)
    by_token = Finished(FinishReason.STOP, 1, 1, 0, timing, stop_token_id=0)
    by_model = Finished(FinishReason.STOP, 1, 1, 0, timing)
    assert written(by_token).finished.WhichOneof("stopped_by") == "stop_token_id"
    assert written(by_model).finished.WhichOneof("stopped_by") is None


def test_a_failure_keeps_its_details() -> None:
    error = OutOfMemoryError("too big", retry_after_s=2.0)
    told = from_status(written(Failed(error)).failed.status)
    assert type(told) is OutOfMemoryError
    assert (told.message, told.retry_after_s) == ("too big", 2.0)


def test_the_prompts_log_probabilities_travel_with_started() -> None:
    first = TokenLogprob(7, "a", b"a", float("nan"))
    second = TokenLogprob(8, "b", b"b", -0.5, (TokenLogprob(9, "c", b"c", -0.25),))
    target = worker_pb2.SequenceEvent()
    write_event(Started(2, prompt_logprobs=(first, second)), target)
    one, two = target.started.prompt_logprobs
    assert (one.token_id, one.text) == (7, "a")
    assert one.logprob != one.logprob
    assert (two.logprob, two.top[0].token_id, two.top[0].logprob) == (-0.5, 9, -0.25)
