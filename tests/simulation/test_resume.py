"""A stream that outlives any number of workers is the stream that would have been."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.simulation.resuming import Workers, answer, draw_start
from tokenmesh.worker.v1 import worker_pb2

SCHEDULES = int(os.environ.get("TOKENMESH_SIMULATED_SCHEDULES", "400"))


def copy(start: worker_pb2.Start) -> worker_pb2.Start:
    copied = worker_pb2.Start()
    copied.CopyFrom(start)
    return copied


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
@pytest.mark.parametrize("block", range(5))
async def test_no_token_is_lost_or_repeated(block: int, whole: bool) -> None:
    deaths = (0.02, 0.2, 0.45)
    workers = Workers()
    for seed in range(block, SCHEDULES, 5):
        random = Random(seed)
        start = draw_start(random)
        undisturbed = await answer(workers, copy(start), random, death=0.0, whole=False)
        resumed = await answer(workers, copy(start), random, death=deaths[seed % 3], whole=whole)
        assert resumed == undisturbed, f"seed {seed}"
        for choice in undisturbed:
            assert choice.starts == 1
            assert len(choice.ends) == 1
            assert len(choice.token_ids) == choice.ends[0][2] <= start.sampling.max_tokens
