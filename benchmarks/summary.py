"""From what clients saw to a few numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.load import Measurement

PERCENTILES = (50, 90, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order. There must be one."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def spread_ms(seconds: Iterable[float]) -> dict[str, float]:
    """Percentiles and mean of durations, in milliseconds; empty for none."""
    ordered = sorted(value * 1000 for value in seconds)
    if not ordered:
        return {}
    spread = {f"p{percent}": round(percentile(ordered, percent), 4) for percent in PERCENTILES}
    return spread | {"mean": round(statistics.fmean(ordered), 4)}


def summarise(measurement: Measurement) -> dict[str, Any]:
    """The numbers of one run."""
    requests = len(measurement.request_s)
    return {
        "requests": requests,
        "errors": len(measurement.errors),
        "error_examples": sorted(set(measurement.errors))[:3],
        "elapsed_s": round(measurement.elapsed_s, 4),
        "requests_per_s": round(requests / measurement.elapsed_s, 2),
        "tokens_per_s": round(measurement.completion_tokens / measurement.elapsed_s, 2),
        "chunks_per_token": round(measurement.chunks / max(1, measurement.completion_tokens), 3),
        "request_ms": spread_ms(measurement.request_s),
        "first_token_ms": spread_ms(measurement.first_token_s),
        "gap_ms": spread_ms(measurement.gap_s),
    }
