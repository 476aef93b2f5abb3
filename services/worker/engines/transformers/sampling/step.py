"""Takes the logits of a step apart: next tokens for some sequences, prompt scores for others."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows

import torch

from services.mesh.errors import MeshError
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.work import Work
from services.worker.engines.transformers.transfer import to_device

Outcome = Sampled | MeshError | None
"""What a work led to: a token, why there is none, or nothing to tell yet."""


def launch_sampling(
    sampler: Sampler, works: Rows[Work], logits: torch.Tensor
) -> Callable[[], list[Outcome]]:
    """Has the device find out what each work led to. The result waits, and tells it in order.

    Notes the scores of prompts where they are wanted: that waits right away.

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
        return lambda: outcomes
    if len(last_rows) < len(logits):
        logits = logits[to_device(torch.tensor(last_rows), logits.device)]
    sampling = [number for number, work in enumerate(works) if work.samples]
    pending = sampler.launch([works[number].sequence for number in sampling], logits)

    def read() -> list[Outcome]:
        for number, token in zip(sampling, pending.read(), strict=True):
            outcomes[number] = outcomes[number] or token
        return outcomes

    return read


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
