"""Measures what a generation keeps, so that no more are run than the memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from services.worker.engines.transformers.serial.generation import Generation

PROBE_TOKENS = 8


@dataclass(frozen=True)
class Footprint:
    """What a sequence keeps on the device."""

    fixed_bytes: int
    """Whatever its length, such as the state of a state-space model."""
    token_bytes: int
    """For each token of the prompt or the output, whichever needs more. Never 0."""


@dataclass(frozen=True)
class Probe:
    """What came of running a few tokens."""

    footprint: Footprint
    vocabulary_size: int
    replay_difference: float
    """Between computing tokens one by one and all at once: relative, of the logits."""


@torch.inference_mode()
def probe(model: Any, vocabulary_size: int) -> Probe:
    """Generates a few tokens and looks at what is kept. Raises whatever the model raises."""
    ids = [(7 + 13 * place) % vocabulary_size for place in range(3 * PROBE_TOKENS)]
    prompt, output = ids[:PROBE_TOKENS], ids[-PROBE_TOKENS:]
    stepwise = Generation(model, prompt, ())
    logits = stepwise.next_logits()
    short_bytes = stepwise.kept_bytes
    for token_id in output:
        logits = stepwise.next_logits([token_id])
    per_output_token = _per_token(stepwise.kept_bytes - short_bytes)
    long = Generation(model, ids[: 2 * PROBE_TOKENS], ())
    long.next_logits()
    per_prompt_token = _per_token(long.kept_bytes - short_bytes)
    token_bytes = max(per_output_token, per_prompt_token, 1)
    replayed = Generation(model, prompt, output).next_logits()
    finite = torch.isfinite(logits) & torch.isfinite(replayed)
    difference = (logits - replayed)[finite].norm() / logits[finite].norm()
    return Probe(
        Footprint(max(0, short_bytes - PROBE_TOKENS * token_bytes), token_bytes),
        logits.shape[-1],
        float(difference),
    )


def _per_token(more_bytes: int) -> int:
    return -(-more_bytes // PROBE_TOKENS)
