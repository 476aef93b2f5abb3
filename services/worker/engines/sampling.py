"""Resolves what a request says about sampling, over the model's defaults, and checks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from services.mesh.errors import InvalidRequestError, UnsupportedError
from services.worker.engines.base import Sampling

MAX_CHOICES = 128
MAX_STOP_STRINGS = 64
MAX_BAD_WORDS = 1024
MAX_TOP_LOGPROBS = 20

_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-6, 1e6),
    "top_k": (-1, 2**31 - 1),
    "seed": (0, 2**64 - 1),
    "max_tokens": (1, 2**31 - 1),
    "min_tokens": (0, 2**31 - 1),
    "choices": (1, MAX_CHOICES),
    "best_of": (1, MAX_CHOICES),
    "top_logprobs": (0, MAX_TOP_LOGPROBS),
    "prompt_top_logprobs": (0, MAX_TOP_LOGPROBS),
    "stream_interval_tokens": (1, 2**31 - 1),
}
_FIELDS = frozenset(Sampling.__dataclass_fields__)


def resolve_sampling(
    fields: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    vocabulary_size: int,
    unsupported: Collection[str] = (),
) -> Sampling:
    """The sampling that a request gets: its own fields over the model's defaults.

    Args:
        fields: what the client set, by the names of tokenmesh.mesh.v1.SamplingParameters.
        defaults: what the model's generation config says, by the same names.
        vocabulary_size: token ids are below it.
        unsupported: fields that this engine cannot do.

    Raises:
        InvalidRequestError: a field is out of range; `field` is its path.
        UnsupportedError: the request asks for what the engine cannot do.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    _refuse_unsupported(given, unsupported)
    for name, value in given.items():
        if name in _RANGES:
            _require_range(name, value)
    values = {name: value for name, value in defaults.items() if name in _FIELDS} | given
    if values.get("top_k") == -1:
        values["top_k"] = 0
    values["stop"] = _strings("stop", values.get("stop", ()), MAX_STOP_STRINGS)
    values["bad_words"] = _strings("bad_words", values.get("bad_words", ()), MAX_BAD_WORDS)
    values["stop_token_ids"] = frozenset(values.get("stop_token_ids", ()))
    values["logit_bias"] = dict(values.get("logit_bias", {}))
    _require_token_ids("stop_token_ids", values["stop_token_ids"], vocabulary_size)
    _require_token_ids("logit_bias", values["logit_bias"], vocabulary_size)
    for token_id, bias in values["logit_bias"].items():
        if not -100 <= bias <= 100:
            raise InvalidRequestError(
                f"logit_bias of token {token_id} is {bias}: it must be from -100 to 100",
                field="sampling.logit_bias",
            )
    sampling = Sampling(**values)
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise InvalidRequestError(
            f"min_tokens is {sampling.min_tokens}: it must not be over max_tokens, "
            f"{sampling.max_tokens}",
            field="sampling.min_tokens",
        )
    if sampling.best_of is not None and sampling.best_of < sampling.choices:
        raise InvalidRequestError(
            f"best_of is {sampling.best_of}: it must be at least choices, {sampling.choices}",
            field="sampling.best_of",
        )
    return sampling


def _refuse_unsupported(given: Mapping[str, Any], unsupported: Collection[str]) -> None:
    for name in given.keys() & unsupported:
        # Drawing as many outputs as are returned is what happens anyway.
        is_harmless = name == "best_of" and given[name] == given.get("choices", 1)
        if not is_harmless and given[name] not in ((), []):
            raise UnsupportedError(f"this engine cannot do {name}", field=f"sampling.{name}")
    for name in given.keys() - _FIELDS:
        raise UnsupportedError(f"this engine does not know {name}", field=f"sampling.{name}")


def _require_range(name: str, value: Any) -> None:
    low, high = _RANGES[name]
    # Written so that NaN fails.
    if isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequestError(
            f"{name} is {value}: it must be from {low:g} to {high:g}", field=f"sampling.{name}"
        )


def _require_token_ids(name: str, token_ids: Any, vocabulary_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocabulary_size:
            raise InvalidRequestError(
                f"{name} holds token {token_id}: token ids of this model are from 0 to "
                f"{vocabulary_size - 1}",
                field=f"sampling.{name}",
            )


def _strings(name: str, given: Any, limit: int) -> tuple[str, ...]:
    strings = (given,) if isinstance(given, str) else tuple(given)
    if len(strings) > limit:
        raise InvalidRequestError(
            f"{name} holds {len(strings)} strings: at most {limit} are allowed",
            field=f"sampling.{name}",
        )
    if "" in strings:
        raise InvalidRequestError(f"{name} holds an empty string", field=f"sampling.{name}")
    return strings
