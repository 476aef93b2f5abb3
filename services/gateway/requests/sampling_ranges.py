"""The ranges of sampling parameters, as tokenmesh/mesh/v1/generation.proto names them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import generation_pb2

FIELD = "sampling"
MAX_CHOICES = 128
MAX_STOP_STRINGS = 64
MAX_STOP_STRING_CHARACTERS = 1024
MAX_STOP_TOKENS = 1024
MAX_BAD_WORDS = 1024
MAX_LOGIT_BIASES = 1024
MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 100.0


@dataclass(frozen=True)
class Range:
    """The values that a number may have."""

    low: float
    high: float = math.inf
    excludes_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is in the range. Not-a-number and infinity never are."""
        if not math.isfinite(value) or value > self.high:
            return False
        return value > self.low if self.excludes_low else value >= self.low

    def __str__(self) -> str:
        low = f"over {self.low:g}" if self.excludes_low else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        if self.excludes_low:
            return f"{low} and up to {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"


RANGES = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, excludes_low=True),
    "top_k": Range(-1),
    "min_p": Range(0, 1),
    "repetition_penalty": Range(0, excludes_low=True),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "max_tokens": Range(1),
    "choices": Range(1, MAX_CHOICES),
    "best_of": Range(1, MAX_CHOICES),
    "top_logprobs": Range(0, MAX_TOP_LOGPROBS),
    "prompt_top_logprobs": Range(0, MAX_TOP_LOGPROBS),
    "stream_interval_tokens": Range(1),
}

_COUNTS = {
    "stop": MAX_STOP_STRINGS,
    "stop_token_ids": MAX_STOP_TOKENS,
    "bad_words": MAX_BAD_WORDS,
    "logit_bias": MAX_LOGIT_BIASES,
}


def check(sampling: generation_pb2.SamplingParameters) -> None:
    """Checks all that can be known without the model.

    Raises:
        InvalidRequestError: names the field, what it held, and what it may hold.
    """
    for descriptor, value in sampling.ListFields():
        name = descriptor.name
        allowed = RANGES.get(name)
        if allowed is not None and not allowed.holds(value):
            raise _invalid(name, f"must be {allowed}, not {value:g}")
        limit = _COUNTS.get(name)
        if limit is not None and len(value) > limit:
            raise _invalid(name, f"may have {limit} entries at most, not {len(value)}")
    _check_together(sampling)
    _check_strings("stop", sampling.stop)
    _check_strings("bad_words", sampling.bad_words)
    for token_id, bias in sampling.logit_bias.items():
        if not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS:
            raise _invalid(
                f"logit_bias[{token_id}]",
                f"must be between {-MAX_LOGIT_BIAS:g} and {MAX_LOGIT_BIAS:g}, not {bias:g}",
            )
    if sampling.HasField("constraint"):
        _check_constraint(sampling.constraint)


def _check_together(sampling: generation_pb2.SamplingParameters) -> None:
    if sampling.HasField("max_tokens") and sampling.min_tokens > sampling.max_tokens:
        raise _invalid(
            "min_tokens",
            f"must be at most sampling.max_tokens, which is {sampling.max_tokens}, "
            f"not {sampling.min_tokens}",
        )
    choices = sampling.choices if sampling.HasField("choices") else 1
    if sampling.HasField("best_of") and sampling.best_of < choices:
        raise _invalid(
            "best_of",
            f"must be at least sampling.choices, which is {choices}, not {sampling.best_of}",
        )


def _check_strings(name: str, values: Iterable[str]) -> None:
    for index, value in enumerate(values):
        if not value:
            raise _invalid(f"{name}[{index}]", "must not be empty")
        if len(value) > MAX_STOP_STRING_CHARACTERS:
            raise _invalid(
                f"{name}[{index}]",
                f"may have {MAX_STOP_STRING_CHARACTERS} characters at most, not {len(value)}",
            )


def _check_constraint(constraint: generation_pb2.Constraint) -> None:
    form = constraint.WhichOneof("form")
    if form is None:
        raise _invalid(
            "constraint", "must name a form: json_object, json_schema, regex, choices or grammar"
        )
    if form == "choices" and not constraint.choices.values:
        raise _invalid("constraint.choices.values", "must not be empty")
    if form == "json_schema" and not constraint.json_schema.schema:
        raise _invalid("constraint.json_schema.schema", "must not be empty")
    if form in ("regex", "grammar") and not getattr(constraint, form):
        raise _invalid(f"constraint.{form}", "must not be empty")


def _invalid(name: str, what: str) -> InvalidRequestError:
    field = f"{FIELD}.{name}"
    return InvalidRequestError(f"{field} {what}", field=field)
