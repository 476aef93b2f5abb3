"""When and why an output of the scripted engine ends."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.engines.base import FinishReason, Sampling


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a sequence is over."""

    reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Length:
    """How many completion tokens a choice may have, and why it ends there."""

    tokens: int
    reason: FinishReason


def choose_length(sampling: Sampling, room_tokens: int, answer_tokens: int) -> Length:
    """The end of an output that no stop string or stop token ends before.

    `room_tokens` is what the context leaves; `answer_tokens` 0 means an answer without end.
    """
    limit = min(sampling.max_tokens or room_tokens, room_tokens)
    answer = max(answer_tokens, sampling.min_tokens)
    if answer_tokens and not sampling.ignore_eos and answer <= limit:
        return Length(answer, FinishReason.STOP)
    return Length(limit, FinishReason.LENGTH)
