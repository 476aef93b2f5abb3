"""OpenAI's JSON for chats becomes typed requests, or an error that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.chat.request import read_chat_options
from services.gateway.openai.constraints import constraint_field
from services.mesh.errors import InvalidRequestError
from tests.openai_json import request_of
from tests.openai_requests import HELLO, chat, chat_error, complete
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest
from tokenmesh.openai.v1.completion_pb2 import CreateCompletionRequest


def test_all_sampling_fields_are_carried_over() -> None:
    sampling = chat(
        temperature=0.0,
        top_p=0.5,
        n=3,
        stop=["a", "b"],
        max_tokens=7,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias={"5": -100, "6": 1.5},
        logprobs=True,
        top_logprobs=2,
        seed=11,
        top_k=4,
        min_p=0.125,
        repetition_penalty=1.25,
        min_tokens=2,
        ignore_eos=True,
        stop_token_ids=[9, 10],
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        bad_words=["x"],
    ).sampling
    assert json_format.MessageToDict(sampling, preserving_proto_field_name=True) == {
        "temperature": 0.0,
        "top_p": 0.5,
        "choices": 3,
        "stop": ["a", "b"],
        "max_tokens": 7,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"5": -100.0, "6": 1.5},
        "top_logprobs": 2,
        "seed": "11",
        "top_k": 4,
        "min_p": 0.125,
        "repetition_penalty": 1.25,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [9, 10],
        "include_stop_string": True,
        "skip_special_tokens": False,
        "bad_words": ["x"],
    }


def test_absent_and_null_fields_stay_absent() -> None:
    absent = chat()
    names = [field.name for field in CreateChatCompletionRequest.DESCRIPTOR.fields]
    given = {"model", "messages"}
    assert chat(**{name: None for name in names if name not in given}) == absent
    assert not absent.sampling.ListFields()


def test_a_null_list_of_values_comes_from_envoy_as_a_list_of_one_null() -> None:
    assert chat(tools=[None]) == chat()
    assert not chat(messages=[None]).prompt.messages


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6


def test_logprobs_without_top_logprobs_asks_for_the_chosen_tokens_only() -> None:
    sampling = chat(logprobs=True).sampling
    assert sampling.HasField("top_logprobs")
    assert sampling.top_logprobs == 0


def test_a_negative_seed_is_taken() -> None:
    assert chat(seed=-1).sampling.seed == 2**64 - 1


def test_messages_of_every_role_and_kind() -> None:
    prompt = chat(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "developer", "content": [{"type": "text", "text": "d"}]},
            {"role": "user", "name": "bob", "content": ""},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
                ],
            },
        ]
    ).prompt
    roles = [mesh_chat_pb2.Role.Name(message.role) for message in prompt.messages]
    assert roles == [
        *("ROLE_SYSTEM", "ROLE_DEVELOPER", "ROLE_USER"),
        *("ROLE_ASSISTANT", "ROLE_TOOL", "ROLE_USER"),
    ]
    system, developer, bob, call, result, media = prompt.messages
    assert system.content[0].text == "s"
    assert developer.content[0].text == "d"
    assert (bob.name, bob.content[0].text) == ("bob", "")
    assert not call.content
    assert (call.tool_calls[0].id, call.tool_calls[0].name) == ("c1", "f")
    assert (result.tool_call_id, result.content[0].text) == ("c1", "42")
    assert media.content[1].image.url == "https://x/y.png"
    assert media.content[1].image.detail == mesh_chat_pb2.IMAGE_DETAIL_LOW
    assert media.content[2].audio.data == b"\x00\x01\x02"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([5], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": 5, "content": "x"}], "messages[0].role"),
        ([{"role": "boss", "content": "x"}], "messages[0].role"),
        ([*HELLO, {"role": "user"}], "messages[1].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "movie"}]}], "messages[0].content[0].type"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x"}]}],
            "messages[0].content[0].image_url",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}
                    ],
                }
            ],
            "messages[0].content[0].input_audio.data",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}],
            "messages[0].tool_calls[0].function.name",
        ),
        ([{"role": "user", "content": "x", "name": 3}], "messages[0].name"),
        (
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
            "messages[0].content[0].file.file_id",
        ),
    ],
)
def test_a_malformed_message_is_named(messages: list[Any], field: str) -> None:
    error = chat_error(messages=messages)
    assert error.field == field
    assert field in error.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_completion_tokens": 2**40}, "max_completion_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"stop_token_ids": [1, -1]}, "stop_token_ids[1]"),
        ({"logit_bias": {"dog": 1}}, "logit_bias"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -2}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"stream_interval": 0}, "stream_interval"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": ""}, "chat_template_kwargs"),
        ({"documents": {}}, "documents"),
        ({"documents": ["x"]}, "documents[0]"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"safety_identifier": "x" * 129}, "safety_identifier"),
        ({"prediction": {"type": "video"}}, "prediction.type"),
        ({"add_special_tokens": True}, "add_special_tokens"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"metadata": {str(number): "a" for number in range(17)}}, "metadata"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice.type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "never"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a name", "schema": {}},
                }
            },
            "response_format.json_schema.name",
        ),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[" * 100_000}, "guided_json"),
        ({"guided_json": '{"a": NaN}'}, "guided_json"),
        ({"guided_json": '{"a": 1e999}'}, "guided_json"),
        ({"guided_json": '{"a": "\\ud800"}'}, "guided_json"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert chat_error(**fields).field == field


def test_tools_and_their_choice() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    prompt = chat(
        tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
    ).prompt
    assert prompt.tools[0].name == "f"
    assert json.loads(prompt.tools[0].parameters) == parameters
    assert prompt.tool_choice.name == "f"
    assert prompt.HasField("parallel_tool_calls")
    mode = chat(tool_choice="none").prompt.tool_choice.mode
    assert mode == mesh_chat_pb2.TOOL_CHOICE_MODE_NONE


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}},
                }
            },
            "json_schema",
        ),
        ({"guided_json": '{"type": "object"}'}, "json_schema"),
        ({"guided_regex": "a+"}, "regex"),
        ({"guided_choice": ["a"]}, "choices"),
        ({"guided_grammar": "root ::= x"}, "grammar"),
        ({"structured_outputs": {"regex": "a+"}}, "regex"),
    ],
)
def test_the_form_of_the_output(fields: dict[str, Any], form: str | None) -> None:
    assert chat(**fields).sampling.constraint.WhichOneof("form") == form


def test_a_schema_keeps_its_integers() -> None:
    schema = {"type": "array", "maxItems": 5}
    constraint = chat(guided_json=schema).sampling.constraint
    assert '"maxItems": 5' in constraint.json_schema.schema
    assert "5.0" not in constraint.json_schema.schema


def test_a_safety_identifier_stands_for_the_user() -> None:
    assert chat(safety_identifier="s").user == "s"
    assert chat(safety_identifier="s", user="u").user == "u"


def test_a_lower_priority_goes_first_as_in_vllm() -> None:
    assert chat(priority=-3).priority == 3
    assert chat(priority=-(2**31)).priority == 2**31 - 1
    assert complete(priority=2)[0].priority == -2


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_every_effort_of_reasoning_is_known(effort: str) -> None:
    typed = chat(reasoning_effort=effort).prompt.reasoning_effort
    assert mesh_chat_pb2.ReasoningEffort.Name(typed) == f"REASONING_EFFORT_{effort.upper()}"


def test_documents_are_an_argument_of_the_chat_template() -> None:
    documents = [{"title": "t", "text": "x"}]
    arguments = chat(documents=documents).prompt.chat_template_arguments
    assert json_format.MessageToDict(arguments) == {"documents": documents}
    both = chat(documents=documents, chat_template_kwargs={"a": 1, "documents": []}).prompt
    assert json_format.MessageToDict(both.chat_template_arguments) == {"a": 1.0, "documents": []}


def function_tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name}} for name in names]


def allowed_tools(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": function_tools(*names)},
    }


def test_allowed_tools_are_those_that_the_model_is_told_of() -> None:
    prompt = chat(
        tools=function_tools("a", "b", "c"), tool_choice=allowed_tools("required", "c", "a")
    ).prompt
    assert [tool.name for tool in prompt.tools] == ["a", "c"]
    assert prompt.tool_choice.mode == mesh_chat_pb2.TOOL_CHOICE_MODE_REQUIRED


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        (allowed_tools("auto", "z"), "tool_choice.allowed_tools.tools[0]"),
        (allowed_tools("none", "a"), "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
    ],
)
def test_a_wrong_choice_among_tools_is_named(choice: dict[str, Any], field: str) -> None:
    assert chat_error(tools=function_tools("a"), tool_choice=choice).field == field


def options(**fields: Any) -> AnswerOptions:
    body = {"model": "m", "messages": HELLO, **fields}
    return read_chat_options(request_of(CreateChatCompletionRequest, body))


def test_the_options_of_an_answer() -> None:
    assert options() == AnswerOptions()
    assert options(stream=True, stream_options={"continuous_usage_stats": True}) == AnswerOptions()
    asked = options(
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        logprobs=True,
        top_logprobs=3,
        echo=True,
        include_reasoning=False,
        return_token_ids=True,
        return_tokens_as_token_ids=True,
        service_tier="fast",
    )
    assert asked == AnswerOptions(
        top_logprobs=3,
        echo=True,
        reasoning=False,
        token_ids=True,
        tokens_as_ids=True,
        usage=True,
        continuous_usage=True,
        service_tier=True,
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ],
)
def test_an_option_without_an_effect_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        options(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar"),
        ({"tools": function_tools("f")}, "tools"),
        ({"tools": function_tools("f"), "guided_json": {}}, "guided_json"),
    ],
)
def test_what_holds_an_output_to_a_form_is_called_as_the_client_did(
    fields: dict[str, Any], name: str
) -> None:
    assert constraint_field(request_of(CreateChatCompletionRequest, fields)) == name
    if "tools" not in fields:
        assert constraint_field(request_of(CreateCompletionRequest, fields)) == name
