"""A completion as OpenAI's clients ask for it: one typed request of the gateway for each prompt."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from services.gateway.openai.answer_options import AnswerOptions, read_answer_options
from services.gateway.openai.json_fields import invalid_type, missing, plain, whole_number
from services.gateway.openai.sampling import read_priority, read_sampling, unsigned
from services.gateway.openai.unoffered import refuse_unoffered
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1.completion_pb2 import CompleteRequest, PromptTokens
from tokenmesh.mesh.v1.generation_pb2 import SamplingParameters
from tokenmesh.openai.v1.completion_pb2 import CreateCompletionRequest

MAX_PROMPTS = 128
DEFAULT_MAX_TOKENS = 16


def read_completion_requests(request: CreateCompletionRequest) -> list[CompleteRequest]:
    """The typed requests, one for each prompt, in order.

    Raises:
        InvalidRequestError: a field is malformed; `field` is in OpenAI's spelling.
    """
    if not request.model:
        raise missing("model")
    refuse_unoffered(request)
    if request.suffix:
        raise InvalidRequestError(
            "Unsupported parameter: 'suffix'. No model here inserts text.",
            reason="UNSUPPORTED_PARAMETER",
            field="suffix",
        )
    if request.HasField("add_special_tokens") and not request.add_special_tokens:
        raise InvalidRequestError(
            "Unsupported value: 'add_special_tokens' may only be true here: send token ids where "
            "the tokenizer is to add nothing.",
            reason="UNSUPPORTED_PARAMETER",
            field="add_special_tokens",
        )
    sampling = _sampling(request)
    prompts = _prompts(request.prompt)
    if len(prompts) > MAX_PROMPTS:
        raise InvalidRequestError(
            f"Invalid 'prompt': expected at most {MAX_PROMPTS} prompts, but got {len(prompts)}.",
            field="prompt",
        )
    common = CompleteRequest(
        model=request.model,
        sampling=sampling,
        priority=read_priority(request),
        user=request.user,
        echo=request.echo,
    )
    return [_with_prompt(common, prompt) for prompt in prompts]


def read_completion_options(request: CreateCompletionRequest) -> AnswerOptions:
    """What the client asks to be told.

    Raises:
        InvalidRequestError: an option stands where it cannot have an effect.
    """
    return read_answer_options(
        request, top_logprobs=request.logprobs if request.HasField("logprobs") else None
    )


def _with_prompt(common: CompleteRequest, prompt: str | PromptTokens) -> CompleteRequest:
    request = CompleteRequest()
    request.CopyFrom(common)
    if isinstance(prompt, str):
        request.text = prompt
    else:
        request.token_ids.CopyFrom(prompt)
    return request


def _sampling(request: CreateCompletionRequest) -> SamplingParameters:
    sampling = read_sampling(request)
    sampling.max_tokens = DEFAULT_MAX_TOKENS
    if request.HasField("max_tokens"):
        sampling.max_tokens = unsigned("max_tokens", request.max_tokens, at_least=1)
    if request.HasField("logprobs"):
        sampling.top_logprobs = unsigned("logprobs", request.logprobs)
        if request.echo:
            sampling.prompt_top_logprobs = max(sampling.prompt_top_logprobs, sampling.top_logprobs)
    return sampling


def _prompts(value: struct_pb2.Value) -> list[str | PromptTokens]:
    """The prompts of OpenAI's union: a string, strings, token ids, or lists of token ids."""
    prompt = plain(value)
    if prompt is None:
        raise missing("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise invalid_type("prompt", "a string or a list", prompt)
    if not prompt:
        raise InvalidRequestError("Invalid 'prompt': it holds no prompt.", field="prompt")
    if isinstance(prompt[0], float):
        return [_tokens("prompt", prompt)]
    return [_prompt(f"prompt[{index}]", each) for index, each in enumerate(prompt)]


def _prompt(path: str, prompt: Any) -> str | PromptTokens:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list):
        return _tokens(path, prompt)
    raise invalid_type(path, "a string or a list of token ids", prompt)


def _tokens(path: str, values: list[Any]) -> PromptTokens:
    return PromptTokens(
        values=[
            unsigned(f"{path}[{index}]", whole_number(f"{path}[{index}]", value))
            for index, value in enumerate(values)
        ]
    )
