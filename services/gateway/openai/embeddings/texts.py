"""Reads texts and token ids out of the unions of a request's JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf import struct_pb2

from services.gateway.openai.json_fields import invalid_type, missing, plain, whole_number
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1.completion_pb2 import PromptTokens
from tokenmesh.gateway.v1.embedding_pb2 import EmbedInput

READ_AT_ONCE = 64
"""Inputs that are read before other requests have their turn: each token id is a JSON value."""

MAX_TOKEN_ID = 2**32 - 1


def is_one_input(value: struct_pb2.Value) -> bool:
    """Whether a union holds one text, as a string or as its token ids, and no list of texts."""
    values = value.list_value.values
    is_list = value.WhichOneof("kind") == "list_value"
    return not is_list or (bool(values) and values[0].WhichOneof("kind") == "number_value")


async def read_inputs(value: struct_pb2.Value, path: str) -> list[EmbedInput]:
    """The inputs of OpenAI's union: a string, strings, token ids, or lists of token ids.

    Raises:
        InvalidRequestError: it is none of them; `field` is the path of what is wrong.
    """
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        raise missing(path)
    if kind == "string_value":
        return [EmbedInput(text=value.string_value)]
    if kind != "list_value":
        raise invalid_type(path, "a string or a list", plain(value))
    values = value.list_value.values
    if not values:
        raise InvalidRequestError(f"Invalid '{path}': it holds no text.", field=path)
    if values[0].WhichOneof("kind") == "number_value":
        return [EmbedInput(token_ids=await _token_ids(path, values))]
    inputs = []
    for index, each in enumerate(values):
        inputs.append(await _input(f"{path}[{index}]", each))
        if index % READ_AT_ONCE == READ_AT_ONCE - 1:
            await asyncio.sleep(0)
    return inputs


def read_texts(value: struct_pb2.Value, path: str) -> list[str]:
    """A string, or strings.

    Raises:
        InvalidRequestError: it is neither; `field` is the path of what is wrong.
    """
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        raise missing(path)
    if kind == "string_value":
        return [value.string_value]
    if kind != "list_value":
        raise invalid_type(path, "a string or a list of strings", plain(value))
    return [_text(f"{path}[{index}]", each) for index, each in enumerate(value.list_value.values)]


def _text(path: str, value: struct_pb2.Value) -> str:
    if value.WhichOneof("kind") != "string_value":
        raise invalid_type(path, "a string", plain(value))
    return value.string_value


async def _input(path: str, value: struct_pb2.Value) -> EmbedInput:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return EmbedInput(text=value.string_value)
    if kind == "list_value":
        return EmbedInput(token_ids=await _token_ids(path, value.list_value.values))
    raise invalid_type(path, "a string or a list of token ids", plain(value))


async def _token_ids(path: str, values: Sequence[struct_pb2.Value]) -> PromptTokens:
    read = PromptTokens()
    for index, each in enumerate(values):
        where = f"{path}[{index}]"
        token_id = whole_number(where, plain(each))
        if not 0 <= token_id <= MAX_TOKEN_ID:
            raise InvalidRequestError(
                f"Invalid '{where}': {token_id} is no token id, which is 0 or more.", field=where
            )
        read.values.append(token_id)
        if index % 8192 == 8191:
            await asyncio.sleep(0)
    return read
