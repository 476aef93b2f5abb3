"""The places and the KV memory that running sequences take, and the prefill before they run."""

from __future__ import annotations

from services.worker.engines.scripted.jobs import Job, JobQueue
from services.worker.engines.scripted.prefix_cache import PrefixCache
from services.worker.engines.scripted.sequence import Sequence
from services.worker.engines.scripted.settings import ScriptedSettings


class Slots:
    """Sequences that have left the queue. Each reserves KV memory for its longest output."""

    def __init__(self, settings: ScriptedSettings) -> None:
        self.entries: list[tuple[Job, Sequence]] = []
        """Those that run, and some whose job is over, until the next step drops them."""
        self.taken = 0
        self.kv_used_tokens = 0
        self.queried_tokens = 0
        """Tokens that were looked up in the prefix cache, since the start."""
        self.hit_tokens = 0
        """Those of them that it held."""
        self._max_running = settings.max_running
        self._kv_total_tokens = settings.kv_total_tokens
        self._pace = settings.pace
        self._prefix_cache = PrefixCache()
        self._prefill_free_s = 0.0

    def admit(self, queue: JobQueue, now_s: float) -> None:
        """Takes sequences from the queue, best first, while slots and memory suffice.

        Their prompts are computed one after another; choices after the first find theirs computed.
        """
        while (job := queue.first()) is not None:
            if self.taken >= self._max_running:
                return
            if self.kv_used_tokens + job.reserved_tokens > self._kv_total_tokens:
                return
            sequence = job.sequences[job.admitted]
            prefill_tokens = sequence.position if job.admitted else self._uncached(job, sequence)
            starts_s = max(now_s, self._prefill_free_s)
            sequence.admitted_s = now_s
            sequence.ready_s = starts_s + self._pace.prefill_time_s(prefill_tokens)
            self._prefill_free_s = sequence.ready_s
            self.entries.append((job, sequence))
            self.taken += 1
            self.kv_used_tokens += job.reserved_tokens
            job.admitted += 1
            if not job.is_waiting:
                queue.leave()

    def _uncached(self, job: Job, sequence: Sequence) -> int:
        """How many tokens of the prompt and the output so far must be computed.

        Prompts are computed one after another, so the next one may count on this one's blocks.
        """
        token_ids = [*job.prompt_token_ids, *sequence.output_token_ids()]
        cached = self._prefix_cache.match(token_ids)
        job.cached_tokens = min(cached, job.prompt_tokens)
        self.queried_tokens += len(token_ids)
        self.hit_tokens += cached
        self.keep(token_ids, job.reserved_tokens)
        return len(token_ids) - cached

    def keep(self, token_ids: list[int], more_tokens: int = 0) -> None:
        """Keeps what was computed, where running sequences and `more_tokens` leave room."""
        self._prefix_cache.keep(token_ids)
        self._prefix_cache.shrink(self._kv_total_tokens - self.kv_used_tokens - more_tokens)

    def release(self, job: Job, sequences: int) -> None:
        """Frees what so many sequences of a job hold."""
        self.taken -= sequences
        self.kv_used_tokens -= sequences * job.reserved_tokens

    def next_ready_s(self, now_s: float) -> float | None:
        """When the next prompt will be computed; None when all are."""
        return min((each.ready_s for _, each in self.entries if each.ready_s > now_s), default=None)
