"""OpenAI's JSON for a response becomes the typed request, or an error that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.responses.items import ITEM_TYPES, PlacedItem, read_input
from services.gateway.openai.responses.request import ResponseRequest, read_response_request
from services.gateway.openai.responses.spelling import ResponseSpelling
from services.gateway.requests.validation import chat_start
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import chat_pb2
from tokenmesh.openai.v1.response_pb2 import CreateResponseRequest

ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}},
    "strict": True,
}
CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "3"}


def read(**fields: Any) -> ResponseRequest:
    request = CreateResponseRequest()
    body = {"model": "m", "input": "Hello", **fields}
    json_format.ParseDict(body, request, ignore_unknown_fields=True)
    return read_response_request(request)


def error(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        read(**fields)
    return raised.value


def messages(*items: Any, instructions: str | None = None) -> list[chat_pb2.Message]:
    return Conversation(instructions, read_input(list(items))).messages


def test_a_string_is_a_message_of_the_user() -> None:
    asked = read(instructions="Be brief.")
    conversation = Conversation(asked.instructions, asked.items)
    system, user = asked.chat_request(conversation).prompt.messages
    assert (system.role, system.content[0].text) == (chat_pb2.ROLE_SYSTEM, "Be brief.")
    assert (user.role, user.content[0].text) == (chat_pb2.ROLE_USER, "Hello")
    assert asked.items[0].item["id"].startswith("msg_")


def test_everything_that_can_be_asked() -> None:
    asked = read(
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=7,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        tools=[ADD],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"a": "b"},
        user="me",
        truncation="disabled",
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="s",
        max_tool_calls=3,
        seed=-1,
        top_k=4,
        min_p=0.1,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        repetition_penalty=1.5,
        min_tokens=1,
        priority=2,
        stream=True,
        stream_options={"include_obfuscation": False},
    )
    chat = asked.chat
    sampling = chat.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 7)
    assert (sampling.top_logprobs, sampling.seed) == (2, 2**64 - 1)
    assert sampling.constraint.json_schema.schema == '{"type": "object"}'
    assert json.loads(chat.prompt.tools[0].parameters) == ADD["parameters"]
    assert chat.prompt.tools[0].strict
    assert chat.prompt.tool_choice.name == "add"
    assert chat.prompt.parallel_tool_calls is False
    assert chat.prompt.reasoning_effort == chat_pb2.REASONING_EFFORT_LOW
    assert (chat.user, chat.priority) == ("me", -2)
    assert asked.shows_summary
    told = asked.told
    assert told["tools"] == [ADD]
    assert told["tool_choice"] == {"type": "function", "name": "add"}
    assert told["reasoning"] == {"effort": "low", "summary": "auto"}
    assert told["text"]["format"]["name"] == "n"
    assert told["metadata"] == {"a": "b"}
    assert told["service_tier"] == "default"


def test_what_is_left_out_is_told_as_the_default_or_as_null() -> None:
    told = read().told
    assert told["tool_choice"] == "auto"
    assert told["parallel_tool_calls"] is True
    assert told["truncation"] == "disabled"
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert (told["temperature"], told["top_p"], told["max_output_tokens"]) == (None, None, None)
    assert read().store
    assert not read().insists_on_store


def test_log_probabilities_come_where_they_are_included() -> None:
    assert not read(top_logprobs=2).chat.sampling.HasField("top_logprobs")
    assert read(include=["message.output_text.logprobs"]).chat.sampling.top_logprobs == 0


def test_a_turn_of_the_assistant_is_one_message() -> None:
    found = messages(
        {"role": "user", "content": "Add."},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "So:"}]},
        CALL,
        {**CALL, "call_id": "c2"},
        OUTPUT,
        {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "4"}]},
        {"type": "message", "role": "developer", "content": "Go on."},
    )
    assert [message.role for message in found] == [
        chat_pb2.ROLE_USER,
        chat_pb2.ROLE_ASSISTANT,
        chat_pb2.ROLE_TOOL,
        chat_pb2.ROLE_TOOL,
        chat_pb2.ROLE_DEVELOPER,
    ]
    turn = found[1]
    assert (turn.reasoning, turn.content[0].text) == ("Hm", "So:")
    assert [call.id for call in turn.tool_calls] == ["c1", "c2"]
    assert [(each.tool_call_id, each.content[0].text) for each in found[2:4]] == [
        ("c1", "3"),
        ("c2", "4"),
    ]


def test_a_summary_stands_for_thoughts_that_are_not_told() -> None:
    summary = [{"type": "summary_text", "text": "In short"}]
    found = messages(
        {"role": "user", "content": "Add."},
        {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "x"},
        CALL,
    )
    assert found[1].reasoning == "In short"
    assert found[1].tool_calls[0].name == "add"


def test_thoughts_that_lead_to_nothing_are_left_out() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    found = messages({"role": "user", "content": "a"}, thought, {"role": "user", "content": "b"})
    assert [message.reasoning for message in found] == ["", ""]


def test_items_are_given_back_whole() -> None:
    message, call, output = (
        each.item for each in read_input([{"role": "assistant", "content": "Hi"}, CALL, OUTPUT])
    )
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi"}
    assert (message["content"], message["status"]) == ([part], "completed")
    assert call["id"].startswith("fc_")
    assert output["id"].startswith("fco_")


def test_allowed_tools_leave_out_the_others() -> None:
    other = {**ADD, "name": "other"}
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    asked = read(tools=[ADD, other], tool_choice=choice)
    assert [tool.name for tool in asked.chat.prompt.tools] == ["add"]
    assert asked.chat.prompt.tool_choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED
    assert [tool["name"] for tool in asked.told["tools"]] == ["add", "other"]
    assert asked.told["tool_choice"] == choice


@pytest.mark.parametrize(
    "kind", ["web_search", "file_search", "mcp", "code_interpreter", "custom", "computer_use"]
)
def test_tools_that_openai_runs_are_refused_by_name(kind: str) -> None:
    refused = error(tools=[ADD, {"type": kind}])
    assert refused.field == "tools[1].type"
    assert f"'{kind}'" in refused.message
    assert "'function'" in refused.message


TEXT_PART = {"type": "input_text", "text": "a"}


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"model": ""}, "model", "Missing"),
        ({"input": None}, "input", "Missing"),
        ({"input": 3}, "input", "a string or a list of items"),
        ({"input": ["x"]}, "input[0]", "an object"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", ITEM_TYPES[0]),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role", "developer"),
        ({"input": [{"role": "user"}]}, "input[0].content", "Missing"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content", "empty list"),
        (
            {"input": [{"role": "user", "content": [TEXT_PART, {"type": "text", "text": "x"}]}]},
            "input[0].content[1].type",
            "input_text",
        ),
        (
            {"input": [{"role": "assistant", "content": [TEXT_PART]}]},
            "input[0].content[0].type",
            "'output_text', 'refusal'",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
            "No files are kept here",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
            "input[0].content[0].file_url",
            "file_data",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "?"}]}]},
            "input[0].content[0].file_data",
            "base64",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].arguments", "Missing"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id", "Missing"),
        ({"input": [{"content": "x"}]}, "input[0].id", "Missing"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "Missing"),
        ({"tools": [{**ADD, "parameters": 3}]}, "tools[0].parameters", "an object"),
        ({"tool_choice": "maybe"}, "tool_choice", "required"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "allowed_tools"),
        (
            {
                "tools": [ADD],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "x"}],
                },
            },
            "tool_choice.tools[0].name",
            "none of 'tools'",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "Miss"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity", "medium"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "minimal"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary", "concise"),
        ({"include": ["x"]}, "include[0]", "message.output_text.logprobs"),
        ({"truncation": "some"}, "truncation", "auto"),
        ({"service_tier": "gold"}, "service_tier", "flex"),
        ({"max_output_tokens": 0}, "max_output_tokens", "minimum"),
        ({"max_tool_calls": 0}, "max_tool_calls", "minimum"),
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"prompt": {"id": "p"}}, "prompt", "instructions"),
        ({"moderation": {"model": "m"}}, "moderation", "moderates"),
        ({"stream_options": {}}, "stream_options", "'stream'"),
        ({"background": True, "store": False}, "store", "Background"),
        ({"metadata": {"a": 3}}, "metadata.a", "a string"),
        ({"metadata": {"a" * 65: "x"}}, "metadata", "64"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "512"),
        (
            {"metadata": {str(number): "" for number in range(17)}},
            "metadata",
            "16",
        ),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], field: str, said: str) -> None:
    refused = error(**fields)
    assert refused.field == field
    assert said in refused.message


def test_an_output_needs_its_call() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        messages({"role": "user", "content": "x"}, OUTPUT)
    assert raised.value.field == "input[1].call_id"


def spelled_error(**fields: Any) -> tuple[str | None, str]:
    """What validation finds, in the words of who sent it."""
    asked = read(**fields)
    past = [PlacedItem("previous_response_id", each.item) for each in read_input("Before")]
    spelling = ResponseSpelling()
    spelling.conversation = Conversation(asked.instructions, [*past, *asked.items])
    with pytest.raises(InvalidRequestError) as raised:
        chat_start(asked.chat_request(spelling.conversation), "r")
    assert raised.value.field is not None
    return spelling.field(raised.value.field), spelling.words(raised.value.message)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 1, "min_tokens": 2}, "min_tokens"),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{**ADD, "name": "a b"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"instructions": "x", "input": [{**CALL, "name": ""}]}, "input[0].name"),
    ],
)
def test_validation_speaks_of_what_the_client_sent(fields: dict[str, Any], field: str) -> None:
    named, words = spelled_error(**fields)
    assert named == field
    assert "sampling." not in words
    assert "prompt." not in words


def test_places_of_messages() -> None:
    conversation = Conversation(
        "Be brief.",
        [
            PlacedItem("previous_response_id", read_input("Before")[0].item, is_string=True),
            *read_input([{"role": "user", "content": "x"}, CALL, {**CALL, "call_id": "c2"}]),
        ],
    )
    spelled = conversation.spelled
    assert spelled("prompt.messages[0].content[0]") == "instructions"
    assert spelled("prompt.messages[1].content[0].image") == "previous_response_id.image"
    assert spelled("prompt.messages[2].content[0] is bad") == "input[0].content[0] is bad"
    assert spelled("prompt.messages[3].tool_calls[1].name") == "input[2].name"
    assert spelled("may be in assistant messages only") == "may be in assistant messages only"
    assert spelled("prompt.messages[9]") == "prompt.messages[9]"
