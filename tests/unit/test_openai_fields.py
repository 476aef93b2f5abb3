"""Every field that is documented, by OpenAI or here, is one that the requests know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat import completion_create_params as chat_create_params

from services.gateway.openai import unoffered
from tokenmesh.openai.v1 import chat_pb2, completion_pb2, embedding_pb2, tokenization_pb2

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openai.md"
CHAT: Any = chat_pb2.CreateChatCompletionRequest
COMPLETION: Any = completion_pb2.CreateCompletionRequest
REQUESTS = (
    CHAT,
    COMPLETION,
    chat_pb2.StreamOptions,
    embedding_pb2.CreateEmbeddingRequest,
    embedding_pb2.RerankRequest,
    embedding_pb2.ScoreRequest,
    tokenization_pb2.TokenizeRequest,
    tokenization_pb2.DetokenizeRequest,
    tokenization_pb2.CheckTokensRequest,
)


def fields_of(message: Any) -> set[str]:
    return set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("message", "documented"),
    [
        (CHAT, chat_create_params.CompletionCreateParamsStreaming),
        (COMPLETION, completion_create_params.CompletionCreateParamsStreaming),
        (chat_pb2.StreamOptions, ChatCompletionStreamOptionsParam),
        (embedding_pb2.CreateEmbeddingRequest, embedding_create_params.EmbeddingCreateParams),
    ],
    ids=["chat", "completion", "stream options", "embedding"],
)
def test_every_field_of_openais_sdk_is_known(message: Any, documented: Any) -> None:
    assert set(documented.__annotations__) - fields_of(message) == set()


def test_every_known_field_is_documented() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", DOCUMENT.read_text()))
    for message in REQUESTS:
        assert fields_of(message) - named == set(), message


def test_what_is_refused_is_a_field_of_free_form() -> None:
    refused = set(unoffered.REASONS)
    assert refused <= fields_of(CHAT) | fields_of(COMPLETION)
    for message in (CHAT, COMPLETION):
        for name in refused & fields_of(message):
            kind = message.DESCRIPTOR.fields_by_name[name].message_type
            assert kind.full_name == "google.protobuf.Value"
