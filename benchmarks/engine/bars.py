"""What the engine is to reach beside its peers, and whether it does."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.engine.parts import Part

OURS = "TokenMesh"
OURS_SERVED = "TokenMesh with Envoy"


@dataclass(frozen=True)
class Bar:
    """Our tokens/s are to be at least so many times the peer's, measured in one call."""

    kind: str
    dtype: str
    concurrency: int
    ours: str
    peer: str
    factor: float


BARS = (
    *(
        Bar("in process", dtype, concurrency, OURS, "vLLM-CPU", 0.9)
        for dtype in ("float32", "bfloat16")
        for concurrency in (8, 32)
    ),
    Bar("in process", "float32", 32, OURS, "ContinuousBatchingManager", 2.0),
    Bar("in process", "float32", 1, OURS, "generate, one after another", 1.5),
    Bar("served", "float32", 32, OURS_SERVED, OURS, 0.95),
    Bar("served", "float32", 32, OURS_SERVED, "FastChat", 8.0),
)


def rates(part: Part, peer: str, concurrency: int) -> list[float]:
    """Tokens/s of each repeat."""
    return [
        run["tokens_per_s"]
        for run in part["runs"]
        if run["peer"] == peer and run["concurrency"] == concurrency
    ]


def ratio(bar: Bar, parts: Sequence[Part]) -> float | None:
    """Ours over the peer's, medians of the latest part that holds both; None where none does."""
    found = None
    for part in parts:
        if part["kind"] != bar.kind or part["dtype"] != bar.dtype:
            continue
        ours = rates(part, bar.ours, bar.concurrency)
        peer = rates(part, bar.peer, bar.concurrency)
        if ours and peer:
            found = statistics.median(ours) / statistics.median(peer)
    return found


def rows(parts: Sequence[Part]) -> Iterator[list[str]]:
    """A row of the report for each bar."""
    for bar in BARS:
        reached = ratio(bar, parts)
        verdict = "not measured"
        if reached is not None:
            verdict = "holds" if reached >= bar.factor else "does not hold"
        yield [
            f"{bar.kind}, {bar.dtype}, {bar.concurrency} at once: {bar.ours} / {bar.peer}",
            f"{bar.factor:.2f}",
            "" if reached is None else f"{reached:.2f}",
            verdict,
        ]
