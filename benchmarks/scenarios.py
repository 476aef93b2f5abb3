"""The mesh under load: each of its layers asked by few and many, at two paces of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from benchmarks import mesh
from benchmarks.runs import Connect, Subject, in_turn, take
from benchmarks.targets import chat_grpc, openai_rest, worker
from services.cli.up.notice import MeshNotice

CONCURRENCIES = (1, 32, 256)
SINGLE_TOKENS = 1
STREAM_TOKENS = 128

# What the report calls it, the process of the mesh that is asked, and how.
TARGETS: tuple[tuple[str, str, Connect], ...] = (
    ("worker", "worker", worker.connect),
    ("gateway", "gateway", chat_grpc.connect),
    ("mesh, gRPC", "envoy", chat_grpc.connect),
    ("mesh, REST", "envoy", openai_rest.connect),
)

# More than any concurrency here: the mesh is measured, not its queues.
_ROOM = ("--limit-worker-concurrency", "1024", "--max-waiting", "1024")


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


def _subjects(notice: MeshNotice) -> list[Subject]:
    (model,) = notice.models
    process_ids = {process.job: process.process_id for process in notice.processes}
    return [
        Subject(name, notice.addresses(job)[0], model, connect, process_ids)
        for name, job, connect in TARGETS
    ]


async def take_all() -> AsyncIterator[dict[str, Any]]:
    """Takes all measurements, one after another."""
    for pace in PACES:
        async with mesh.running(pace.worker_options) as notice:
            turns = in_turn(
                _subjects(notice), pace.name, pace.completion_tokens, CONCURRENCIES, pace.repeats
            )
            for subject, run in turns:
                yield await take(subject, run, pace.duration_s)
