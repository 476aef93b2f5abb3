"""Runs a few tokens to learn what a model keeps of a sequence, and whether it may be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from services.worker.engines.transformers.serial.generation import Generation
from services.worker.engines.transformers.serial.module_state import ModuleState

_PROMPT_TOKENS = 8
_OUTPUT_TOKENS = 4


@dataclass(frozen=True)
class Footprint:
    """What a sequence keeps on the device."""

    fixed_bytes: int
    """Whatever its length, such as the state of a state-space model."""
    token_bytes: int
    """For each token of the prompt or the output, whichever needs more. Never 0."""


@dataclass(frozen=True)
class Probe:
    """What came of it."""

    modules: ModuleState
    footprint: Footprint
    logits_size: int
    replay_difference: float
    """Of the logits, relative: between computing tokens one by one, in turn with another sequence,
    and all at once."""


@torch.inference_mode()
def probe(model: Any, vocabulary_size: int) -> Probe:
    """Generates a few tokens. Raises whatever the model raises."""
    ids = [(7 + 13 * place) % vocabulary_size for place in range(2 * _PROMPT_TOKENS)]
    prompt, output = ids[:_PROMPT_TOKENS], ids[-_OUTPUT_TOKENS:]
    modules = ModuleState.find(model, lambda: _run(model, prompt, output))
    short = Generation(model, modules, prompt, ())
    short.next_logits()
    short_bytes = short.kept_bytes
    long = Generation(model, modules, ids, ())
    long.next_logits()
    per_prompt_token = math.ceil((long.kept_bytes - short_bytes) / (len(ids) - len(prompt)))
    for token_id in output:
        long.next_logits([token_id])
        logits = short.next_logits([token_id])
    per_output_token = math.ceil((short.kept_bytes - short_bytes) / len(output))
    token_bytes = max(per_output_token, per_prompt_token, 1)
    replayed = Generation(model, modules, prompt, output).next_logits()
    finite = torch.isfinite(logits) & torch.isfinite(replayed)
    difference = (logits - replayed)[finite].norm() / logits[finite].norm()
    return Probe(
        modules,
        Footprint(max(0, short_bytes - len(prompt) * token_bytes), token_bytes),
        logits.shape[-1],
        float(difference),
    )


def _run(model: Any, prompt: list[int], output: list[int]) -> None:
    generation = Generation(model, ModuleState((), ()), prompt, ())
    generation.next_logits()
    generation.next_logits(output[:1])
