"""Free-form JSON is read in the order in which it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.openai.chat.request import read_chat_request
from services.gateway.openai.json_fields import MAX_EXACT_INTEGER, plain, with_integers
from services.gateway.openai.json_order import in_order
from tests.openai_json import request_of, write_value
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=30,
)
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "minLength": 1} for name in "zebra"},
    "required": list("zebra"),
}


@given(JSON)
def test_any_json_is_read_as_it_was_written(written: Any) -> None:
    value = in_order(struct_pb2.Value)()
    write_value(value, written)
    read = plain(in_order(struct_pb2.Value).FromString(value.SerializeToString()))
    assert json.dumps(read) == json.dumps(written)


def test_a_struct_of_the_generated_classes_is_read_too() -> None:
    value = struct_pb2.Value()
    value.struct_value.update({"a": [1, {"b": None}]})
    assert plain(value) == {"a": [1.0, {"b": None}]}


def test_the_rest_of_a_request_is_read_as_ever() -> None:
    body = {"model": "m", "messages": [], "temperature": 0.0, "stream_options": {}}
    read = request_of(CreateChatCompletionRequest, body)
    plain_read = CreateChatCompletionRequest.FromString(read.SerializeToString())
    assert plain_read.HasField("temperature")
    assert plain_read.HasField("stream_options")
    assert (read.model, read.HasField("temperature")) == ("m", True)


def test_schemas_keep_the_order_of_their_keys() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    }
    read = read_chat_request(request_of(CreateChatCompletionRequest, body))
    for text in (read.prompt.tools[0].parameters, read.sampling.constraint.json_schema.schema):
        assert text == json.dumps(SCHEMA)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1.5, "1.5"),
        (float(MAX_EXACT_INTEGER), "9007199254740992"),
        (2.0**60, "1.152921504606847e+18"),
        (1e300, "1e+300"),
    ],
)
def test_whole_numbers_are_integers_as_far_as_a_float_is_exact(number: float, shown: str) -> None:
    assert json.dumps(with_integers({"n": [number]})) == f'{{"n": [{shown}]}}'
