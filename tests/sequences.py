"""Sequences and schedulers without a model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Rows
from typing import Any

from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output

BLOCK_TOKENS = 4
SAMPLED_ID = 1


def choices(
    key: str,
    prompt: int | Rows[int] = 5,
    *,
    count: int = 1,
    priority: int = 0,
    credit_tokens: int | None = None,
    deadline_s: float | None = None,
    adapter: str = "",
) -> list[Sequence]:
    """The sequences of a request; a prompt given as a number is that long and like no other."""
    start = zlib.crc32(key.encode()) * 1000
    ids = tuple(range(start, start + prompt)) if isinstance(prompt, int) else tuple(prompt)
    sampling = Sampling(choices=count)
    request = Request(key, key, ids, "", sampling, deadline_s, priority, 0.0, adapter)
    return [
        Sequence(
            request,
            index,
            Output(ByteDetokenizer(lambda _: b""), sampling, 10**6, frozenset()),
            credit_tokens,
        )
        for index in range(count)
    ]


def sequence(key: str, prompt: int | Rows[int] = 5, **fields: Any) -> Sequence:
    """A request with one choice."""
    return choices(key, prompt, **fields)[0]


def scheduler_of(
    *,
    slots: int = 4,
    step_tokens: int = 100,
    blocks: int = 1000,
    prefix_cache: bool = True,
) -> Scheduler:
    """A scheduler over blocks of BLOCK_TOKENS."""
    pool = BlockPool(blocks, BLOCK_TOKENS)
    return Scheduler(slots, step_tokens, pool, prefix_cache=prefix_cache)


def pool_of(scheduler: Scheduler) -> BlockPool:
    """The blocks under a scheduler."""
    return scheduler._pool


def step(scheduler: Scheduler) -> list[tuple[str, int]]:
    """Does what a step does. Returns who computed how much."""
    works = scheduler.schedule().works
    for work in works:
        scheduler.advance(work)
        if work.samples:
            work.sequence.output.take(SAMPLED_ID)
            if work.sequence.credit_tokens is not None:
                work.sequence.credit_tokens -= 1
    return [(str(work.sequence.request.key), work.tokens) for work in works]
