"""Sampling launches all that it needs before it reads anything, as a device would be waited for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from services.worker.engines.transformers.sampling import drawing
from services.worker.engines.transformers.sampling.blocks import block_maxima
from services.worker.engines.transformers.sampling.drawing import (
    Filters,
    draw_filtered,
    draw_from_all,
)
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.sequence import Sequence
from tests.unit.test_engine_sampling import sequence

VOCABULARY = 9001
"""Larger than what is looked at first, and no whole number of blocks."""


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that bring values to the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith(("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")):
            self.count += 1
        return func(*args, **kwargs or {})


@pytest.fixture
def far_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the CPU treated as a device whose values are not at hand."""
    monkeypatch.setattr(drawing, "_is_at_hand", lambda _: False)


def rows() -> list[Sequence]:
    fields: list[dict[str, Any]] = [
        {"temperature": 0},
        {},
        {"top_p": 0.5},
        {"top_k": 3, "top_p": 0.9},
        {"min_p": 0.2, "top_logprobs": 3},
        {"top_p": 0.999, "temperature": 2.0, "top_logprobs": 0},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "logit_bias": {7: 4.0}},
        {"min_tokens": 3, "stop_token_ids": [11]},
    ]
    return [sequence(number, seed=number, **each) for number, each in enumerate(fields)]


def logits() -> torch.Tensor:
    values = torch.randn(len(rows()), VOCABULARY, generator=torch.Generator().manual_seed(5)) * 0.5
    # Many equal ones, where a filter must cut between equals.
    values[2] = (values[2] * 4).round()
    values[3] = 0
    return values


@pytest.mark.usefixtures("far_device")
def test_launching_waits_for_nothing() -> None:
    sampler = Sampler(VOCABULARY, torch.device("cpu"))
    batch, values = rows(), logits()
    with Waits() as waits:
        pending = sampler.launch(batch, values)
    assert waits.count == 0
    assert len(pending.read()) == len(batch)


def test_what_waits_is_seen() -> None:
    with Waits() as waits:
        torch.ones(3).nonzero()
        torch.ones(()).item()
    assert waits.count == 2


def test_a_far_device_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    near = Sampler(VOCABULARY, torch.device("cpu")).sample(rows(), logits())
    monkeypatch.setattr(drawing, "_is_at_hand", lambda _: False)
    assert Sampler(VOCABULARY, torch.device("cpu")).sample(rows(), logits()) == near


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.9999])
@pytest.mark.usefixtures("far_device")
def test_what_the_likeliest_tokens_do_not_tell_is_told_by_all(top_p: float) -> None:
    values = torch.stack([torch.zeros(VOCABULARY), torch.arange(VOCABULARY) / VOCABULARY])
    values = torch.cat([values, logits()])
    probabilities = values.softmax(-1)
    count = len(values)
    at = torch.arange(count)
    numbers = torch.rand(count, 1, generator=torch.Generator().manual_seed(1))
    filters = Filters(
        torch.full((count, 1), 2**31 - 1), torch.full((count, 1), top_p), torch.zeros(count, 1)
    )
    maxima = block_maxima(probabilities)
    drawn = draw_filtered(probabilities, maxima, at, numbers, filters)
    exact = draw_from_all(probabilities, at, numbers, filters)
    assert drawn.is_short is not None
    # The flat row spreads over the whole vocabulary: its likeliest tokens cannot tell.
    assert drawn.is_short[0]
    enough = ~drawn.is_short
    assert torch.equal(drawn.token_ids[enough], exact[enough])
