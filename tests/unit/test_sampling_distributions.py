"""What is drawn follows a plain reference: NumPy, in float64, one row, everything sorted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.randomness import stream, uniform, uniforms
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.plan import SamplingPlan
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output

Vector = npt.NDArray[np.float64]

DRAWS = 256
PROMPT_IDS = (1, 4, 4, 9)
OUTPUT_IDS = (4, 7, 7, 2)
END_ID = 3


def reference(logits: Vector, sampling: Sampling) -> Vector:
    """The probability of each token."""
    logits = logits.copy()
    for token_id, bias in sampling.logit_bias.items():
        logits[token_id] += bias
    for token_id in {*PROMPT_IDS, *OUTPUT_IDS}:
        penalty = sampling.repetition_penalty
        logits[token_id] *= 1 / penalty if logits[token_id] > 0 else penalty
    for token_id in set(OUTPUT_IDS):
        logits[token_id] -= sampling.frequency_penalty * OUTPUT_IDS.count(token_id)
        logits[token_id] -= sampling.presence_penalty
    if len(OUTPUT_IDS) + 1 < sampling.min_tokens:
        logits[END_ID] = -np.inf
    logits /= sampling.temperature
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = np.lexsort((np.arange(len(p)), -p))
    kept = order[: sampling.top_k] if sampling.top_k else order
    mass = p[kept].sum()
    before = np.cumsum(p[kept]) - p[kept]
    if sampling.top_p < 1:
        kept = kept[before < sampling.top_p * mass]
    kept = kept[p[kept] >= sampling.min_p * p.max()]
    left: Vector = np.zeros_like(p)
    left[kept] = p[kept]
    left /= left.sum()
    return left


def drawn(
    monkeypatch: pytest.MonkeyPatch, logits: torch.Tensor, sampling: Sampling, *, beside: bool
) -> Vector:
    """Shares of the tokens that evenly spaced numbers draw, which is the distribution itself."""
    request = Request("key", "id", PROMPT_IDS, "", sampling, None, 0, 0.0)
    rows = []
    for _ in range(DRAWS):
        output = Output(ByteDetokenizer(lambda _: b"x"), sampling, 1000, frozenset({END_ID}))
        for token_id in OUTPUT_IDS:
            output.take(token_id)
        rows.append(Sequence(request, 0, output, None))
    if beside:
        greedy = Sampling(temperature=0.0)
        other = Request("other", "id", (1,), "", greedy, None, 0, 0.0)
        output = Output(ByteDetokenizer(lambda _: b"x"), greedy, 1000, frozenset())
        rows.insert(0, Sequence(other, 0, output, None))
    even = (torch.arange(DRAWS)[:, None] + 0.5) / DRAWS
    monkeypatch.setattr(SamplingPlan, "numbers", lambda _: even)
    sampler = Sampler(len(logits), torch.device("cpu"))
    sampled = sampler.sample(rows, logits.repeat(len(rows), 1))[-DRAWS:]
    token_ids = [each.token_id for each in sampled if isinstance(each, Sampled)]
    assert len(token_ids) == DRAWS
    shares: Vector = np.bincount(token_ids, minlength=len(logits)) / DRAWS
    return shares


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 200},
    {"top_k": 4500},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.2},
    {"min_p": 0.001},
    {"top_k": 40, "top_p": 0.7},
    {"top_k": 1000, "top_p": 0.95, "min_p": 0.01},
    {"top_p": 0.9, "min_p": 0.05, "temperature": 0.7},
    {"repetition_penalty": 1.7},
    {"presence_penalty": 1.5, "frequency_penalty": -0.8},
    {"logit_bias": {7: 4.0, 0: -3.0}},
    {"min_tokens": 9},
    {
        "temperature": 0.8,
        "top_k": 60,
        "top_p": 0.92,
        "min_p": 0.02,
        "min_tokens": 6,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.3,
        "logit_bias": {5: 2.0, 9: -1.0},
    },
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
@pytest.mark.parametrize("shape", ["peaked", "flat", "tied"])
@pytest.mark.parametrize("vocabulary", [50, 5003])
def test_the_distribution_is_that_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, vocabulary: int, shape: str, fields: dict[str, Any]
) -> None:
    torch.manual_seed(vocabulary)
    logits = torch.randn(vocabulary) * (4.0 if shape == "peaked" else 0.5)
    if shape == "tied":
        # As bfloat16 leaves them: many tokens with just the same logit.
        logits = (logits * 4).round() / 4
    sampling = Sampling(**fields)
    beside = bool(sampling.top_k)
    shares = drawn(monkeypatch, logits, sampling, beside=beside)
    expected = reference(logits.double().numpy(), sampling)
    # Even spacing puts at most one number too many or too few into each token's interval.
    assert np.abs(shares - expected).max() <= 1.01 / DRAWS
    # What is not kept is not drawn, whatever the rounding; at the border of top_p it may decide.
    border = 0 if sampling.top_p == 1 or shape == "tied" else 1
    assert (shares[expected == 0] > 0).sum() <= border


def test_many_numbers_at_once_are_those_drawn_one_by_one() -> None:
    seeds = [0, 1, 2**53 - 1, 2**64 - 1]
    streams = np.array([stream(seed, 3) for seed in seeds], dtype=np.uint64)
    positions = np.array([0, 7, 100_000, 2**31], dtype=np.uint64)
    expected = [uniform(seed, 3, int(at)) for seed, at in zip(seeds, positions, strict=True)]
    assert uniforms(streams, positions).tolist() == expected
