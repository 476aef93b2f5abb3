"""What is measured: who is asked, by how many at once, for how much, at which pace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import mesh
from benchmarks.load import Ask, measure
from benchmarks.machine import cpu_time_s
from benchmarks.summary import summarise
from benchmarks.targets import chat_grpc, openai_rest, worker
from services.cli.notice import MeshNotice

Connect = Callable[[str, str, int], AbstractAsyncContextManager[list[Ask]]]

CONCURRENCIES = (1, 32, 256)
SINGLE_TOKENS = 1
STREAM_TOKENS = 128

# Before each run, uncounted: connections, caches and the interpreter warm up.
WARM_UP_S = 0.2
# For what the last run left behind.
PAUSE_S = 0.1

# More than any concurrency here: the mesh is measured, not its queues.
_ROOM = ("--limit-worker-concurrency", "1024", "--max-waiting", "1024")


@dataclass(frozen=True)
class Target:
    """Something to ask. `job` is the process of the mesh whose address is asked."""

    name: str
    job: str
    connect: Connect


TARGETS = (
    Target("worker", "worker", worker.connect),
    Target("gateway", "gateway", chat_grpc.connect),
    Target("mesh, gRPC", "envoy", chat_grpc.connect),
    Target("mesh, REST", "envoy", openai_rest.connect),
)


@dataclass(frozen=True)
class Pace:
    """A scripted engine, and how long and how often it is measured."""

    name: str
    worker_options: tuple[str, ...]
    completion_tokens: tuple[int, ...]
    duration_s: float
    repeats: int


PACES = (
    # As fast as the machine goes: what the mesh can carry, and what it adds.
    Pace("instant", _ROOM, (SINGLE_TOKENS, STREAM_TOKENS), duration_s=1.5, repeats=3),
    # As a GPU would: how evenly tokens come.
    Pace("paced", (*_ROOM, "--scripted-token-interval-ms", "10"), (STREAM_TOKENS,), 2.5, repeats=1),
)


@dataclass(frozen=True)
class Run:
    """One measurement to take."""

    pace: str
    target: str
    completion_tokens: int
    concurrency: int
    repeat: int


def _runs(pace: Pace) -> Iterator[tuple[Target, Run]]:
    """Targets take turns, so that a disturbance of the machine does not meet one alone."""
    for repeat in range(pace.repeats):
        for completion_tokens in pace.completion_tokens:
            for concurrency in CONCURRENCIES:
                for target in TARGETS:
                    run = Run(pace.name, target.name, completion_tokens, concurrency, repeat)
                    yield target, run


def _cpu_times_s(notice: MeshNotice) -> dict[str, float]:
    times = {process.job: cpu_time_s(process.process_id) for process in notice.processes}
    return times | {"load generator": cpu_time_s(os.getpid())}


async def _take(notice: MeshNotice, target: Target, run: Run, duration_s: float) -> dict[str, Any]:
    """Takes one measurement."""
    (address,) = notice.addresses(target.job)
    (model,) = notice.models
    async with target.connect(address, model, run.concurrency) as asks:
        await measure(asks, run.completion_tokens, WARM_UP_S)
        before_s = _cpu_times_s(notice)
        measurement = await measure(asks, run.completion_tokens, duration_s)
        after_s = _cpu_times_s(notice)
    tokens = max(1, measurement.completion_tokens)
    used_us = {job: round((after_s[job] - before_s[job]) * 1e6 / tokens, 2) for job in after_s}
    await asyncio.sleep(PAUSE_S)
    return asdict(run) | summarise(measurement) | {"cpu_us_per_token": used_us}


async def take_all() -> AsyncIterator[dict[str, Any]]:
    """Takes all measurements, one after another."""
    for pace in PACES:
        async with mesh.running(pace.worker_options) as notice:
            for target, run in _runs(pace):
                yield await _take(notice, target, run, pace.duration_s)
