"""The load generator gets every answer that it asks for, from each layer of a real mesh."""

from __future__ import annotations

import pytest

from benchmarks import scenarios
from benchmarks.load import measure
from benchmarks.runs import Connect
from services.cli.up.notice import MeshNotice

DURATION_S = 0.2


@pytest.mark.parametrize(
    ("job", "connect"),
    [(job, connect) for _name, job, connect in scenarios.TARGETS],
    ids=[name for name, _job, _connect in scenarios.TARGETS],
)
@pytest.mark.parametrize("completion_tokens", [1, 20])
async def test_every_layer_answers(
    mesh: MeshNotice, job: str, connect: Connect, completion_tokens: int
) -> None:
    (model,) = mesh.models
    async with connect(mesh.addresses(job)[0], model, 10) as asks:
        measurement = await measure(asks, completion_tokens, DURATION_S)
    assert measurement.errors == []
    assert len(measurement.request_s) >= len(asks)
    assert measurement.completion_tokens == completion_tokens * len(measurement.request_s)
    assert bool(measurement.gap_s) == (completion_tokens > 1)


@pytest.mark.parametrize(("_name", "job", "connect"), scenarios.TARGETS)
async def test_a_request_that_fails_is_counted_and_ends_its_client(
    mesh: MeshNotice, _name: str, job: str, connect: Connect
) -> None:
    async with connect(mesh.addresses(job)[0], "no-such-model", 3) as asks:
        measurement = await measure(asks, 1, DURATION_S)
    assert len(measurement.errors) == len(asks)
    assert measurement.request_s == []
