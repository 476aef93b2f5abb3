"""One measurement: who is asked, by how many at once, for how much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load import Ask, measure
from benchmarks.machine import cpu_time_s
from benchmarks.summary import summarise

Connect = Callable[[str, str, int], AbstractAsyncContextManager[list[Ask]]]
"""Opens what so many clients need to ask for a model at an address."""

# Before each run, uncounted: connections, caches and the interpreter warm up.
WARM_UP_S = 0.2
# For what the last run left behind.
PAUSE_S = 0.1


@dataclass(frozen=True)
class Subject:
    """Something that can be asked."""

    name: str
    address: str
    model: str
    connect: Connect
    process_ids: Mapping[str, int]
    """Processes whose processor time is told with the results, by what they are."""


@dataclass(frozen=True)
class Run:
    """What one measurement is of."""

    pace: str
    target: str
    completion_tokens: int
    concurrency: int
    repeat: int


def _cpu_times_s(subject: Subject) -> dict[str, float]:
    times = {job: cpu_time_s(process_id) for job, process_id in subject.process_ids.items()}
    return times | {"load generator": cpu_time_s(os.getpid())}


async def take(subject: Subject, run: Run, duration_s: float) -> dict[str, Any]:
    """Takes one measurement. Its numbers, ready for JSON."""
    async with subject.connect(subject.address, subject.model, run.concurrency) as asks:
        await measure(asks, run.completion_tokens, WARM_UP_S)
        before_s = _cpu_times_s(subject)
        measurement = await measure(asks, run.completion_tokens, duration_s)
        after_s = _cpu_times_s(subject)
    tokens = max(1, measurement.completion_tokens)
    used_us = {job: round((after_s[job] - before_s[job]) * 1e6 / tokens, 2) for job in after_s}
    await asyncio.sleep(PAUSE_S)
    return asdict(run) | summarise(measurement) | {"cpu_us_per_token": used_us}


def in_turn(
    subjects: Sequence[Subject],
    pace: str,
    completion_tokens: Sequence[int],
    concurrencies: Sequence[int],
    repeats: int,
) -> Iterator[tuple[Subject, Run]]:
    """All combinations. Subjects take turns, so a disturbance does not meet one of them alone."""
    for repeat in range(repeats):
        for tokens in completion_tokens:
            for concurrency in concurrencies:
                for subject in subjects:
                    yield subject, Run(pace, subject.name, tokens, concurrency, repeat)
