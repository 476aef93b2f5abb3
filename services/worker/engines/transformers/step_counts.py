"""What the steps have computed so far, and where their time went."""

from __future__ import annotations

import time
from collections.abc import Sequence as Rows

from services.worker.engines.base import EngineCounters
from services.worker.engines.transformers.scheduling.scheduler import Scheduler, Work


class Stopwatch:
    """Adds up the time within its context. Not to be entered twice at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began_s = 0.0

    def __enter__(self) -> None:
        self._began_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began_s


class StepCounts:
    """Sums since the start. The engine's thread writes them; any may read them.

    Nothing is done for a single token.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.decoded_tokens = 0
        self.prefilled_tokens = 0
        self.generated_tokens = 0
        self.schedule = Stopwatch()
        """Choosing who computes what, and giving out blocks."""
        self.forward = Stopwatch()
        """The layout of the step's rows and the model. What an accelerator still computes when the
        call comes back is waited for when tokens are sampled."""
        self.sample = Stopwatch()
        """Choosing tokens from logits."""
        self.publish = Stopwatch()
        """Booking, detokenizing, and handing events to the event loop."""

    def computed(self, works: Rows[Work]) -> None:
        """Counts what was computed. A work of one token is one of a sequence that decodes."""
        self.decoded_tokens += sum(work.tokens == 1 for work in works)
        self.prefilled_tokens += sum(work.tokens for work in works if work.tokens > 1)

    def with_cache(self, scheduler: Scheduler, out_of_memory: int) -> EngineCounters:
        """These, beside what the scheduler has counted."""
        counts = scheduler.counts
        has_prefixes = scheduler.has_prefix_cache
        return EngineCounters(
            steps=self.steps,
            decoded_tokens=self.decoded_tokens,
            prefilled_tokens=self.prefilled_tokens,
            phase_s={
                "schedule": self.schedule.seconds,
                "forward": self.forward.seconds,
                "sample": self.sample.seconds,
                "publish": self.publish.seconds,
            },
            kv_blocks=scheduler.kv_blocks,
            preemptions=counts.preemptions,
            prefix_queried_tokens=counts.queried_tokens if has_prefixes else None,
            prefix_hit_tokens=counts.hit_tokens if has_prefixes else None,
            out_of_memory=out_of_memory,
        )
