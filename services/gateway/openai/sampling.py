"""The sampling parameters that chat completions and completions have in common."""

from __future__ import annotations

import re
from typing import TypeAlias

from google.protobuf import struct_pb2

from services.gateway.openai.constraints import read_constraint
from services.gateway.openai.json_fields import invalid_type, plain
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1.generation_pb2 import SamplingParameters
from tokenmesh.openai.v1 import chat_pb2, completion_pb2, response_pb2

Request: TypeAlias = chat_pb2.CreateChatCompletionRequest | completion_pb2.CreateCompletionRequest

# Fields that have the same name, range and meaning on both sides.
_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "ignore_eos",
    "skip_special_tokens",
)
_SEED_MODULUS = 2**64
_MAX_PRIORITY = 2**31 - 1
_TOKEN_ID = re.compile(r"[0-9]{1,10}")


def read_sampling(request: Request) -> SamplingParameters:
    """How tokens are chosen, apart from max_tokens and logprobs, which the two calls spell apart.

    Raises:
        InvalidRequestError: a field is malformed. Ranges are checked later, with gRPC's requests.
    """
    sampling = SamplingParameters(
        stop=_stop(request.stop),
        stop_token_ids=[
            unsigned(f"stop_token_ids[{index}]", token_id)
            for index, token_id in enumerate(request.stop_token_ids)
        ],
        bad_words=request.bad_words,
        logit_bias=_logit_bias(request.logit_bias),
        constraint=read_constraint(request),
    )
    for name in _SAME:
        if request.HasField(name):  # type: ignore[arg-type]
            setattr(sampling, name, getattr(request, name))
    if request.HasField("seed"):
        sampling.seed = request.seed % _SEED_MODULUS
    if request.HasField("n"):
        sampling.choices = unsigned("n", request.n, at_least=1)
    if request.HasField("min_tokens"):
        sampling.min_tokens = unsigned("min_tokens", request.min_tokens)
    if request.HasField("include_stop_str_in_output"):
        sampling.include_stop_string = request.include_stop_str_in_output
    if request.HasField("prompt_logprobs"):
        sampling.prompt_top_logprobs = unsigned("prompt_logprobs", request.prompt_logprobs)
    if request.HasField("stream_interval"):
        interval = unsigned("stream_interval", request.stream_interval, at_least=1)
        if request.stream:
            sampling.stream_interval_tokens = interval
    if request.HasField("best_of"):
        sampling.best_of = unsigned("best_of", request.best_of, at_least=1)
        if request.stream and request.best_of > max(1, request.n):
            raise InvalidRequestError(
                "Results cannot be streamed when 'best_of' is greater than 'n'.", field="best_of"
            )
    return sampling


def read_priority(request: Request | response_pb2.CreateResponseRequest) -> int:
    """The priority as the mesh has it: vLLM's lower ones go first, and here the higher ones do."""
    return min(-request.priority, _MAX_PRIORITY)


def unsigned(name: str, value: int, *, at_least: int = 0) -> int:
    """The value, which has to fit 32 bits.

    Raises:
        InvalidRequestError: it is less than `at_least`, or too large.
    """
    if value < at_least:
        raise InvalidRequestError(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {at_least}, "
            f"but got {value} instead.",
            reason="INTEGER_BELOW_MIN_VALUE",
            field=name,
        )
    if value >= 2**32:
        raise InvalidRequestError(
            f"Invalid '{name}': integer above maximum value. Expected a value < {2**32}, "
            f"but got {value} instead.",
            reason="INTEGER_ABOVE_MAX_VALUE",
            field=name,
        )
    return value


def _stop(value: struct_pb2.Value) -> list[str]:
    stop = plain(value)
    if stop is None:
        return []
    if isinstance(stop, str):
        return [stop]
    if not isinstance(stop, list):
        raise invalid_type("stop", "a string or a list of strings", stop)
    for index, each in enumerate(stop):
        if not isinstance(each, str):
            raise invalid_type(f"stop[{index}]", "a string", each)
    return stop


def _logit_bias(value: struct_pb2.Value) -> dict[int, float]:
    asked = plain(value)
    if asked is None:
        return {}
    if not isinstance(asked, dict):
        raise invalid_type("logit_bias", "an object", asked)
    biases: dict[int, float] = {}
    for token_id, bias in asked.items():
        if not _TOKEN_ID.fullmatch(token_id):
            raise InvalidRequestError(
                f"Invalid key in 'logit_bias': '{token_id}'. Expected a token id.",
                field="logit_bias",
            )
        if not isinstance(bias, float):
            raise invalid_type(f"logit_bias.{token_id}", "a number", bias)
        biases[unsigned("logit_bias", int(token_id))] = bias
    return biases
