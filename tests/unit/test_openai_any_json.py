"""Whatever JSON comes, it is taken or refused with the field named: never a bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.openai.chat.request import read_chat_request
from services.gateway.openai.completions.request import read_completion_requests
from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.responses.items import ITEM_REFERENCE
from services.gateway.openai.responses.request import read_response_request
from services.mesh.errors import InvalidRequestError
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest
from tokenmesh.openai.v1.completion_pb2 import CreateCompletionRequest
from tokenmesh.openai.v1.response_pb2 import CreateResponseRequest

# Names that the readers look for, so that they are met deep inside, too.
NAMES = st.sampled_from(
    [
        *("role", "content", "name", "type", "text", "refusal", "image_url", "url", "detail"),
        *("input_audio", "data", "format", "file", "file_data", "tool_calls", "tool_call_id", "id"),
        *("function", "arguments", "parameters", "strict", "description", "reasoning_content"),
        *("json_schema", "schema", "json", "regex", "choice", "grammar", "json_object"),
        *("call_id", "output", "summary", "effort", "mode", "tools", "file_id", "filename"),
    ]
)
WORDS = st.one_of(
    st.sampled_from(
        [
            *("user", "assistant", "tool", "system", "text", "image_url", "input_audio", "file"),
            *("function", "auto", "none", "wav", "json_schema", "json_object", "data:;base64,AA"),
            *("message", "reasoning", "function_call", "function_call_output", "item_reference"),
            *("input_text", "output_text", "input_image", "input_file", "summary_text"),
            *("reasoning_text", "allowed_tools"),
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(st.characters(codec="utf-8"), max_size=3), inner)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES | WORDS, JSON, max_size=5)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


def value_of(plain: Any) -> struct_pb2.Value:
    value = struct_pb2.Value()
    if plain is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(plain, bool):
        value.bool_value = plain
    elif isinstance(plain, float):
        value.number_value = plain
    elif isinstance(plain, str):
        value.string_value = plain
    elif isinstance(plain, list):
        value.list_value.values.extend(value_of(item) for item in plain)
        value.list_value.SetInParent()
    else:
        value.struct_value.CopyFrom(struct_of(plain))
    return value


def struct_of(plain: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for name, field in plain.items():
        struct.fields[name].CopyFrom(value_of(field))
    return struct


def refusal_of(read: Callable[[], object]) -> InvalidRequestError | None:
    """Why a request is refused; None when it is taken. Anything else that is raised is a bug."""
    try:
        read()
    except InvalidRequestError as error:
        return error
    return None


@settings(deadline=None)
@given(
    messages=st.lists(OBJECTS | JSON, max_size=3),
    tools=st.lists(OBJECTS | JSON, max_size=2),
    tool_choice=JSON,
    stop=JSON,
    response_format=OBJECTS | JSON,
    guided_json=JSON,
    logit_bias=OBJECTS,
    structured_outputs=OBJECTS,
    numbers=st.tuples(INTEGERS, INTEGERS, INTEGERS),
)
def test_any_chat_request(
    messages: list[Any],
    tools: list[Any],
    tool_choice: Any,
    stop: Any,
    response_format: Any,
    guided_json: Any,
    logit_bias: dict[str, Any],
    structured_outputs: dict[str, Any],
    numbers: tuple[int, int, int],
) -> None:
    request = CreateChatCompletionRequest(
        model="m",
        messages=[value_of(message) for message in messages],
        tools=[value_of(tool) for tool in tools],
        tool_choice=value_of(tool_choice),
        stop=value_of(stop),
        response_format=value_of(response_format),
        guided_json=value_of(guided_json),
        logit_bias=value_of(logit_bias),
        structured_outputs=value_of(structured_outputs),
        max_tokens=numbers[0],
        seed=numbers[1],
        min_tokens=numbers[2],
    )
    refused = refusal_of(lambda: read_chat_request(request))
    assert refused is None or (refused.field and refused.message)


@settings(deadline=None)
@given(prompt=JSON | st.lists(JSON, max_size=4), max_tokens=INTEGERS, stop=JSON)
def test_any_completion_request(prompt: Any, max_tokens: int, stop: Any) -> None:
    request = CreateCompletionRequest(
        model="m", prompt=value_of(prompt), max_tokens=max_tokens, stop=value_of(stop)
    )
    refused = refusal_of(lambda: read_completion_requests(request))
    assert refused is None or (refused.field and refused.message)


@settings(deadline=None, max_examples=50)
@given(
    given_input=JSON | st.lists(OBJECTS | JSON, max_size=4),
    tools=st.lists(OBJECTS | JSON, max_size=2),
    tool_choice=OBJECTS | JSON,
    text=OBJECTS | JSON,
    reasoning=OBJECTS | JSON,
    metadata=JSON,
    numbers=st.tuples(INTEGERS, INTEGERS, INTEGERS),
)
def test_any_response_request(
    given_input: Any,
    tools: list[Any],
    tool_choice: Any,
    text: Any,
    reasoning: Any,
    metadata: Any,
    numbers: tuple[int, int, int],
) -> None:
    request = CreateResponseRequest(
        model="m",
        input=value_of(given_input),
        tools=[value_of(tool) for tool in tools],
        tool_choice=value_of(tool_choice),
        text=value_of(text),
        reasoning=value_of(reasoning),
        metadata=value_of(metadata),
        max_output_tokens=numbers[0],
        seed=numbers[1],
        max_tool_calls=numbers[2],
    )

    def read() -> None:
        asked = read_response_request(request)
        whole = [placed for placed in asked.items if placed.item["type"] != ITEM_REFERENCE]
        asked.chat_request(Conversation(asked.instructions, whole))

    refused = refusal_of(read)
    assert refused is None or (refused.field and refused.message)


@settings(deadline=None, max_examples=50)
@given(items=st.lists(OBJECTS, max_size=4))
def test_any_items(items: list[dict[str, Any]]) -> None:
    request = CreateResponseRequest(model="m", input=value_of(items))

    def read() -> None:
        asked = read_response_request(request)
        whole = [placed for placed in asked.items if placed.item["type"] != ITEM_REFERENCE]
        asked.chat_request(Conversation(asked.instructions, whole))

    refused = refusal_of(read)
    assert refused is None or (refused.field and refused.message)
