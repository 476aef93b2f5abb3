"""How much memory the processes hold, over their lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.processes import PartProcess, resident_kib

INTERVAL_S = 2.0
# Imports, first connections and first buffers: no growth that goes on.
WARM_UP_S = 60.0


@dataclass(frozen=True)
class Growth:
    """The resident memory of one life of a process, from the end of its warm-up to its own end."""

    process: str
    over_s: float
    first_kib: int
    last_kib: int


class MemoryWatch:
    """Samples every process now and then."""

    def __init__(self, processes: Mapping[str, PartProcess], envoy_process_id: int) -> None:
        self._processes = processes
        self._envoy_process_id = envoy_process_id
        self._envoy: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Samples until cancelled."""
        while True:
            for process in self._processes.values():
                process.sample_memory()
            self._envoy.append((time.monotonic(), resident_kib(self._envoy_process_id)))
            await asyncio.sleep(INTERVAL_S)

    def growths(self) -> list[Growth]:
        """Of each process, the longest of its lives that outlasted the warm-up."""
        found: list[Growth] = []
        lives = {name: [life.rss_kib for life in p.lives] for name, p in self._processes.items()}
        for name, samples in (*lives.items(), ("envoy", [self._envoy])):
            grown = [each for each in map(_warm, samples) if len(each) > 1]
            if grown:
                longest = max(grown, key=lambda each: each[-1][0] - each[0][0])
                (first_s, first_kib), (last_s, last_kib) = longest[0], longest[-1]
                found.append(Growth(name, last_s - first_s, first_kib, last_kib))
        return found


def _warm(samples: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [each for each in samples if each[0] - samples[0][0] >= WARM_UP_S]
