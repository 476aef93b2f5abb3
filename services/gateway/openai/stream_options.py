"""`stream_options`: what a stream holds beside the chunks."""

from __future__ import annotations

from typing import TypeAlias

from services.mesh.errors import InvalidRequestError
from tokenmesh.openai.v1 import chat_pb2, completion_pb2

Request: TypeAlias = chat_pb2.CreateChatCompletionRequest | completion_pb2.CreateCompletionRequest


def check_stream_options(request: Request) -> None:
    """Refuses options of a stream where none is asked for.

    Raises:
        InvalidRequestError: `stream_options` without `stream`.
    """
    if request.HasField("stream_options") and not request.stream:
        raise InvalidRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            field="stream_options",
        )


def includes_usage(request: Request) -> bool:
    """Whether the stream ends with a chunk that has usage."""
    return request.stream_options.include_usage
