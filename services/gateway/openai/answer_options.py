"""What a client asks to be told of an answer, beside its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from services.gateway.openai.json_fields import not_one_of
from services.mesh.errors import InvalidRequestError
from tokenmesh.openai.v1 import chat_pb2, completion_pb2

Request: TypeAlias = chat_pb2.CreateChatCompletionRequest | completion_pb2.CreateCompletionRequest

SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
SERVED_TIER = "default"
"""All requests are served alike."""


@dataclass(frozen=True)
class AnswerOptions:
    """What is printed. Each is off unless the client asks for it."""

    top_logprobs: int | None = None
    """Log probabilities of the output's tokens, and of so many likeliest at each position."""
    prompt_logprobs: bool = False
    """In vLLM's shape, beside the choices."""
    echo: bool = False
    """The prompt, or the message that the answer goes on from, before the output."""
    reasoning: bool = True
    """What the model thought."""
    token_ids: bool = False
    tokens_as_ids: bool = False
    """Tokens of log probabilities as "token_id:…"."""
    usage: bool = False
    """The usage, as the last chunk of a stream."""
    continuous_usage: bool = False
    """The usage so far, in every chunk."""
    service_tier: bool = False


def read_answer_options(
    request: Request, *, top_logprobs: int | None, service_tier: str = "", reasoning: bool = True
) -> AnswerOptions:
    """The options of a request. What its call has by another name, or alone, is given.

    Raises:
        InvalidRequestError: an option stands where it cannot have an effect.
    """
    _check_stream_options(request)
    if service_tier and service_tier not in SERVICE_TIERS:
        raise not_one_of("service_tier", SERVICE_TIERS, service_tier)
    if request.HasField("prompt_logprobs") and request.stream:
        raise InvalidRequestError(
            "The 'prompt_logprobs' parameter is not available when 'stream' is enabled.",
            field="prompt_logprobs",
        )
    streamed = request.stream_options
    return AnswerOptions(
        top_logprobs=top_logprobs,
        prompt_logprobs=request.HasField("prompt_logprobs"),
        echo=request.echo,
        reasoning=reasoning,
        token_ids=request.return_token_ids,
        tokens_as_ids=request.return_tokens_as_token_ids,
        usage=streamed.include_usage,
        continuous_usage=streamed.include_usage and streamed.continuous_usage_stats,
        service_tier=bool(service_tier),
    )


def _check_stream_options(request: Request) -> None:
    if request.HasField("stream_options") and not request.stream:
        raise InvalidRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            field="stream_options",
        )
