"""Takes the logits of a step apart: next tokens for some sequences, prompt scores for others."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.mesh.errors import MeshError
from services.worker.engines.transformers.sampling.sampler import Sampled, Sampler
from services.worker.engines.transformers.scheduling.work import Work

Outcome = Sampled | MeshError | None
"""What a work led to: a token, why there is none, or nothing to tell yet."""


def sample_step(sampler: Sampler, works: Rows[Work], logits: torch.Tensor) -> list[Outcome]:
    """What each work led to, in order. Notes the scores of prompts where they are wanted.

    Args:
        logits: `[sum of logit_rows, vocabulary]`, in the order of the works.
    """
    outcomes: list[Outcome] = [None] * len(works)
    last_rows: list[int] = []
    end = 0
    for number, work in enumerate(works):
        start, end = end, end + work.logit_rows
        if work.logit_rows and work.scores_prompt:
            outcomes[number] = _score(sampler, work, logits[start:end])
        if work.samples:
            last_rows.append(end - 1)
    if not last_rows:
        return outcomes
    if len(last_rows) < len(logits):
        logits = logits[torch.tensor(last_rows, device=logits.device)]
    sampling = [number for number, work in enumerate(works) if work.samples]
    tokens = sampler.sample([works[number].sequence for number in sampling], logits)
    for number, token in zip(sampling, tokens, strict=True):
        outcomes[number] = outcomes[number] or token
    return outcomes


def _score(sampler: Sampler, work: Work, logits: torch.Tensor) -> MeshError | None:
    prompt_scores = work.sequence.request.prompt_scores
    assert prompt_scores is not None
    token_ids = prompt_scores.told_by(work.start, work.tokens)
    try:
        # The last position of the prompt tells of the output's first token.
        scores = sampler.score(token_ids, logits[: len(token_ids)], prompt_scores.top_count)
    except MeshError as error:
        return error
    prompt_scores.record(work.start, scores)
    return None
