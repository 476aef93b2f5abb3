"""How often requests went on elsewhere, and what that cost, as the gateways count it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.faults import Service
from tests.chaos.mesh import Mesh

RESUMES = "tokenmesh_gateway_resumes_total"
GAP = "tokenmesh_gateway_resume_gap_seconds_bucket"
INTERVAL_S = 2.0

Counts = dict[str, float]


class Resumes:
    """Sums the counters of all gateways over all their lives.

    A counter ends with its process: what a gateway counted in its last moments before it was
    killed is not seen.
    """

    def __init__(self) -> None:
        self._causes: dict[int, Counts] = {}
        self._gaps: dict[int, dict[float, float]] = {}

    async def run(self, mesh: Mesh) -> None:
        """Reads now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self.read, mesh)
            await asyncio.sleep(INTERVAL_S)

    def read(self, mesh: Mesh) -> None:
        """Reads every gateway that answers."""
        for name, text in mesh.metrics(Service.GATEWAY).items():
            process_id = mesh.processes[name].life.process.pid
            causes: Counter[str] = Counter()
            gaps: dict[float, float] = defaultdict(float)
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == RESUMES:
                        causes[sample.labels["cause"]] += int(sample.value)
                    elif sample.name == GAP:
                        gaps[float(sample.labels["le"])] += sample.value
            self._causes[process_id] = dict(causes)
            self._gaps[process_id] = gaps

    def causes(self) -> dict[str, int]:
        """How many requests went on elsewhere, by why."""
        total: Counter[str] = Counter()
        for counts in self._causes.values():
            total.update({cause: int(count) for cause, count in counts.items()})
        return dict(total)

    def gap_ms(self, quantile: float) -> float | None:
        """The gap that this share of the resumes stayed below, in milliseconds: from the last
        token of the old worker to the first of the new one, less the new prefill. Between the
        histogram's bounds it is interpolated. None where nothing was resumed.
        """
        total: Counter[float] = Counter()
        for buckets in self._gaps.values():
            total.update(buckets)
        return quantile_of(dict(total), quantile, scale=1000.0)


def quantile_of(buckets: dict[float, float], quantile: float, *, scale: float) -> float | None:
    """A quantile of a cumulative histogram: bounds and the counts up to each. None when empty."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = quantile * buckets[bounds[-1]]
    below_bound, below_count = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return below_bound * scale
            share = (rank - below_count) / max(buckets[bound] - below_count, 1e-9)
            return (below_bound + share * (bound - below_bound)) * scale
        below_bound, below_count = bound, buckets[bound]
    return below_bound * scale
