"""OpenAI's JSON for chats and completions, as the gateway reads it."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.openai.chat.request import read_chat_request
from services.gateway.openai.completions.request import read_completion_requests
from services.mesh.errors import InvalidRequestError
from tests.openai_json import request_of
from tokenmesh.gateway.v1 import chat_pb2 as gateway_chat_pb2
from tokenmesh.gateway.v1.completion_pb2 import CompleteRequest
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest
from tokenmesh.openai.v1.completion_pb2 import CreateCompletionRequest

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> gateway_chat_pb2.ChatRequest:
    """The typed request for a chat with these fields."""
    body = {"model": "m", "messages": HELLO, **fields}
    return read_chat_request(request_of(CreateChatCompletionRequest, body))


def complete(**fields: Any) -> list[CompleteRequest]:
    """The typed requests for a completion with these fields."""
    body = {"model": "m", "prompt": "p", **fields}
    return read_completion_requests(request_of(CreateCompletionRequest, body))


def chat_error(**fields: Any) -> InvalidRequestError:
    """Why a chat with these fields is refused."""
    with pytest.raises(InvalidRequestError) as caught:
        chat(**fields)
    return caught.value


def complete_error(**fields: Any) -> InvalidRequestError:
    """Why a completion with these fields is refused."""
    with pytest.raises(InvalidRequestError) as caught:
        complete(**fields)
    return caught.value
