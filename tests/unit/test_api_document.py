"""docs/api.md has every field of every REST call, and no other; names of gRPC in it are there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import (
    input_item_list_params,
    input_token_count_params,
    response_create_params,
    response_retrieve_params,
)

from services.gateway.openai import unoffered
from tests.api_document import Table, tables
from tokenmesh.gateway.v1 import (
    chat_pb2 as gateway_chat_pb2,
)
from tokenmesh.gateway.v1 import (
    completion_pb2 as gateway_completion_pb2,
)
from tokenmesh.gateway.v1 import (
    embedding_pb2 as gateway_embedding_pb2,
)
from tokenmesh.gateway.v1 import (
    model_pb2 as gateway_model_pb2,
)
from tokenmesh.openai.v1 import (
    chat_pb2,
    completion_pb2,
    embedding_pb2,
    model_pb2,
    response_pb2,
    tokenization_pb2,
)

CHAT: Any = chat_pb2.CreateChatCompletionRequest
COMPLETION: Any = completion_pb2.CreateCompletionRequest
FILES: Any = (
    chat_pb2,
    completion_pb2,
    embedding_pb2,
    model_pb2,
    response_pb2,
    tokenization_pb2,
)
TYPED_FILES: Any = (
    gateway_chat_pb2,
    gateway_completion_pb2,
    gateway_embedding_pb2,
    gateway_model_pb2,
)

CHATS = "POST /v1/chat/completions"
RESPONSES = "POST /v1/responses"
RERANK = "POST /v1/rerank and /v1/score"
TOKENS = "Models and tokens"


def fields_of(message: Any) -> set[str]:
    return set(message.DESCRIPTOR.fields_by_name)


def documented(heading: str, table: int | None = None) -> set[str]:
    """The fields that a section's tables name, or one of them."""
    found = tables(heading)
    return {name for each in (found if table is None else [found[table]]) for name in each.named}


ROWS: dict[str, set[str]] = {
    "CreateChatCompletionRequest": documented(CHATS),
    "CreateCompletionRequest": documented(CHATS) | documented("POST /v1/completions"),
    "CreateEmbeddingRequest": documented("POST /v1/embeddings"),
    "RerankRequest": documented(RERANK, 0),
    "ScoreRequest": documented(RERANK, 1),
    "CreateResponseRequest": documented(RESPONSES, 0),
    "CountResponseInputTokensRequest": documented(RESPONSES, 1),
    "RetrieveResponseRequest": documented(RESPONSES, 2),
    "DeleteResponseRequest": documented(RESPONSES, 2),
    "CancelResponseRequest": documented(RESPONSES, 2),
    "ListInputItemsRequest": documented(RESPONSES, 3),
    "ListModelsRequest": set(),
    "RetrieveModelRequest": documented(TOKENS, 0),
    "TokenizeRequest": documented(TOKENS, 1),
    "DetokenizeRequest": documented(TOKENS, 2),
    "CheckTokensRequest": documented(TOKENS, 3),
}
"""What is documented of each request."""


def requests() -> list[Descriptor]:
    """What the REST calls take."""
    return [
        method.input_type
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def names_in(message: Descriptor) -> set[str]:
    """Its fields, and those of the messages that are declared in it."""
    nested = {name for each in message.nested_types for name in each.fields_by_name}
    return set(message.fields_by_name) | nested


@pytest.mark.parametrize("request_type", requests(), ids=lambda each: each.name)
def test_every_field_has_its_row(request_type: Descriptor) -> None:
    assert names_in(request_type) - ROWS[request_type.name] == set()


def test_every_row_is_of_a_field() -> None:
    # Fields of completions are also those that chat completions describe.
    own = {"CreateCompletionRequest": documented("POST /v1/completions")}
    others = {"DeleteResponseRequest", "CancelResponseRequest"}
    for request_type in requests():
        if request_type.name not in others:
            rows = own.get(request_type.name, ROWS[request_type.name])
            assert rows - names_in(request_type) == set(), request_type.name


def test_the_options_of_streams_are_described() -> None:
    (row,) = (row for table in tables(CHATS) for row in table.rows if row[0] == "`stream_options`")
    described = set(re.findall(r"`(\w+)`", row[2]))
    assert described == fields_of(chat_pb2.StreamOptions)


@pytest.mark.parametrize(
    ("message", "sdk"),
    [
        (CHAT, chat_create_params.CompletionCreateParamsStreaming),
        (COMPLETION, completion_create_params.CompletionCreateParamsStreaming),
        (chat_pb2.StreamOptions, ChatCompletionStreamOptionsParam),
        (embedding_pb2.CreateEmbeddingRequest, embedding_create_params.EmbeddingCreateParams),
        (
            response_pb2.CreateResponseRequest,
            response_create_params.ResponseCreateParamsStreaming,
        ),
        (
            response_pb2.CountResponseInputTokensRequest,
            input_token_count_params.InputTokenCountParams,
        ),
        (
            response_pb2.RetrieveResponseRequest,
            response_retrieve_params.ResponseRetrieveParamsStreaming,
        ),
        (response_pb2.ListInputItemsRequest, input_item_list_params.InputItemListParams),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_every_field_of_openais_sdk_is_known(message: Any, sdk: Any) -> None:
    assert set(sdk.__annotations__) - fields_of(message) == set()


def test_what_is_refused_is_a_field_of_free_form() -> None:
    refused = set(unoffered.REASONS)
    assert refused <= fields_of(CHAT) | fields_of(COMPLETION)
    for message in (CHAT, COMPLETION):
        for name in refused & fields_of(message):
            kind = message.DESCRIPTOR.fields_by_name[name].message_type
            assert kind.full_name == "google.protobuf.Value"


def test_what_is_refused_is_documented_as_refused() -> None:
    said = {
        name
        for table in (*tables(CHATS), *tables("POST /v1/completions"))
        for name in Table(table.head, tuple(row for row in table.rows if row[1] == "refused")).named
    }
    assert set(unoffered.REASONS) <= said
    assert said - set(unoffered.REASONS) == {"add_special_tokens", "suffix"}


def test_typed_names_lead_somewhere() -> None:
    messages = {
        name: message
        for file in TYPED_FILES
        for name, message in file.DESCRIPTOR.message_types_by_name.items()
    }
    known = {name for request_type in requests() for name in names_in(request_type)}
    known |= {"reasoning_content"}
    (table,) = tables("The same over gRPC")
    for rest, typed, _ in table.rows:
        spelled = set(re.findall(r"`(\w+)`", rest))
        assert spelled
        assert spelled <= known
        for path in re.findall(r"`([\w.]+)`", typed):
            name, *steps = path.split(".")
            message: Any = messages[name]
            for step in steps:
                message = message.fields_by_name[step].message_type
