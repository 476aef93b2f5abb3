"""The engine's loop: take commands, schedule, run, sample, publish; over and over.

It runs in a thread of its own, the only one that touches the model, the cache and the sequences.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Rows

import structlog
import torch

from services.mesh.errors import (
    DeadlineError,
    InternalError,
    MeshError,
    OutOfMemoryError,
    UnavailableError,
)
from services.worker.engines.base import EngineCounters, EngineLoad, SequenceEvent
from services.worker.engines.transformers import events
from services.worker.engines.transformers.checkpoint.device import release_cached
from services.worker.engines.transformers.commands import (
    Abort,
    Add,
    Command,
    Commands,
    Grant,
    Stop,
    Wake,
)
from services.worker.engines.transformers.idle_release import IdleRelease
from services.worker.engines.transformers.recovery import Recovery, is_out_of_memory
from services.worker.engines.transformers.runner import Runner
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.sampling.step import Outcome, launch_sampling
from services.worker.engines.transformers.scheduling.scheduler import Scheduler, Work
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.step_counts import StepCounts
from services.worker.engines.transformers.telling import Telling, Token
from services.worker.engines.transformers.text.token_texts import TokenTexts

log = structlog.get_logger()


class StepLoop:
    """Computes sequences step by step until it is told to stop.

    Args:
        commands: what the event loop wants. Bounded by admission, which comes before it.
        publish: takes the events of a step.
        may_compute: false while nobody takes what was published; then nothing is computed.
        overlaps: whether a step is told of while the device computes the next one: for devices
            that compute beside this thread.
    """

    def __init__(
        self,
        *,
        commands: Commands,
        scheduler: Scheduler,
        runner: Runner,
        sampler: Sampler,
        texts: TokenTexts,
        device: torch.device,
        publish: Callable[[Rows[SequenceEvent]], None],
        may_compute: Callable[[], bool],
        overlaps: bool = False,
    ) -> None:
        self._commands = commands
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = sampler
        self._texts = texts
        self._publish = publish
        self._may_compute = may_compute
        self._overlaps = overlaps
        self._telling = Telling(texts, publish)
        self._recovery = Recovery(self._run, lambda: release_cached(device))
        self._idle_release = IdleRelease(lambda: release_cached(device))
        self._stopping = False
        self._failed: list[Hashable] = []
        self._counts = StepCounts()
        self.load = EngineLoad(0, 0, 0, 0)
        """How busy it was after the last step. Other threads may read it."""

    def run(self) -> None:
        """Runs until Stop comes; then fails what is left."""
        while not self._stopping:
            try:
                self.step()
            except Exception:
                log.exception("the engine's loop failed; it goes on without its sequences")
                self._fail_all(InternalError("the engine failed"))
        self._fail_all(UnavailableError("the worker stops"))

    def counters(self) -> EngineCounters:
        """What the steps have done so far. From any thread."""
        return self._counts.with_cache(self._scheduler, self._recovery.out_of_memory)

    def step(self) -> None:
        """One turn. Waits for a command where there is nothing to compute."""
        self._take_commands()
        self._expire(time.monotonic())
        with self._counts.schedule:
            works = self._schedule() if self._may_compute() else []
        if works:
            self._compute(works)
        self._drop_failed()
        self._note_load()
        if not (works and self._overlaps):
            self._tell()
            if self._drop_untold():
                self._tell()
        if not works and not self._stopping:
            self._wait_for_command()

    def _take_commands(self) -> None:
        while True:
            try:
                self._apply(self._commands.get_nowait())
            except queue.Empty:
                return

    def _wait_for_command(self) -> None:
        now_s = time.monotonic()
        self._idle_release.look(now_s)
        times = (self._scheduler.next_deadline_s(), self._idle_release.due_s)
        left_s = min((max(0.0, each - now_s) for each in times if each is not None), default=None)
        try:
            self._apply(self._commands.get(timeout=left_s))
        except queue.Empty:
            return

    def _apply(self, command: Command) -> None:
        match command:
            case Add(sequences):
                for sequence in sequences:
                    self._add(sequence)
            case Abort(key):
                for sequence in self._scheduler.of_request(key):
                    self._remove(sequence)
            case Grant(key, tokens):
                for sequence in self._scheduler.of_request(key):
                    if sequence.credit_tokens is not None:
                        sequence.credit_tokens += tokens
            case Wake():
                pass
            case Stop():
                self._stopping = True

    def _add(self, sequence: Sequence) -> None:
        if sequence.ending is None:
            self._scheduler.add(sequence)
            return
        now_s = time.monotonic()
        self._publish(
            [
                *events.started(sequence, self._texts),
                *events.finished(sequence, sequence.ending, now_s),
            ]
        )

    def _expire(self, now_s: float) -> None:
        late = self._scheduler.late(now_s)
        if not late:
            return
        # What was kept of them has the numbers before.
        self._tell()
        for sequence in late:
            self._remove(sequence)
            error = DeadlineError("the request's deadline passed")
            self._telling.keep_events(events.failed(sequence, error))
        self._tell()

    def _schedule(self) -> Rows[Work]:
        schedule = self._scheduler.schedule()
        for sequence in schedule.preempted:
            self._runner.forget(sequence)
        return schedule.works

    def _compute(self, works: Rows[Work]) -> None:
        now_s = time.monotonic()
        for work in works:
            if work.sequence.prefill_started_s is None:
                work.sequence.prefill_started_s = now_s
        self._counts.steps += 1
        for part, result in self._recovery.compute(works):
            if isinstance(result, Exception):
                self._fail(part[0].sequence, result)
            else:
                self._counts.computed(part)
                with self._counts.publish:
                    self._advance(part, result)
        self._drop_untold()
        self._idle_release.worked(time.monotonic())

    def _run(self, works: Rows[Work]) -> list[Outcome]:
        with self._counts.forward:
            sampled = [work.sequence for work in works if work.samples]
            if sampled:
                self._sampler.prepare(sampled)
            logits = self._runner.run(works)
        with self._counts.sample:
            read = launch_sampling(self._sampler, works, logits)
        if self._overlaps:
            # Of the step before: the device is busy with this one.
            self._tell()
        with self._counts.sample:
            outcomes = read()
        if len(works) > 1:
            for number, outcome in enumerate(outcomes):
                if isinstance(outcome, MeshError):
                    # Alone it shows whether another has spoilt it.
                    outcomes[number] = self._run([works[number]])[0]
        return outcomes

    def _advance(self, works: Rows[Work], outcomes: Rows[Outcome]) -> None:
        """Books what a step computed."""
        now_s = time.monotonic()
        for work, outcome in zip(works, outcomes, strict=True):
            if isinstance(outcome, MeshError):
                self._fail(work.sequence, outcome)
                continue
            self._scheduler.advance(work)
            if outcome is not None:
                self._take_token(work.sequence, outcome, now_s)
                self._counts.generated_tokens += 1

    def _take_token(self, sequence: Sequence, sampled: Sampled, now_s: float) -> None:
        try:
            ending = events.add(sequence, sampled, now_s)
        except Exception as fault:
            self._fail(sequence, fault)
            return
        token = Token(sequence, sampled, ending, now_s)
        if self._overlaps and not sequence.output.may_end_in_text:
            self._telling.keep_token(token)
            is_over = ending is not None
        else:
            self._telling.make_events(token)
            is_over = sequence.ending is not None
        if is_over:
            self._remove(sequence)

    def _tell(self) -> None:
        with self._counts.publish:
            self._telling.publish()

    def _drop_untold(self) -> bool:
        """Fails the sequences that could not be told of. Not while a step computes them."""
        faults = self._telling.take_faults()
        for sequence, fault in faults.items():
            self._fail(sequence, fault)
        return bool(faults)

    def _fail(self, sequence: Sequence, fault: Exception) -> None:
        if any(each is sequence for each in self._scheduler):
            self._remove(sequence, spoiled=True)
        request_id = sequence.request.request_id
        log.error("cannot compute a sequence", request_id=request_id, exc_info=fault)
        error: MeshError = InternalError("the engine failed to compute this request")
        if is_out_of_memory(fault):
            error = OutOfMemoryError("the device has no memory for this request, even alone")
        elif isinstance(fault, MeshError):
            error = fault
        if sequence.request.best_of is not None:
            self._failed.append(sequence.request.key)
        if self._overlaps:
            # What is kept of it has the numbers before.
            self._tell()
        self._telling.keep_events(events.failed(sequence, error))

    def _drop_failed(self) -> None:
        """Takes out the outputs that nobody waits for, because one beside them has failed."""
        for key in self._failed:
            for sequence in self._scheduler.of_request(key):
                self._remove(sequence)
        self._failed.clear()

    def _remove(self, sequence: Sequence, *, spoiled: bool = False) -> None:
        self._runner.forget(sequence)
        if spoiled:
            self._runner.clear(self._scheduler.discard(sequence))
        else:
            self._scheduler.remove(sequence)

    def _fail_all(self, error: MeshError) -> None:
        self._tell()
        for sequence in list(self._scheduler):
            self._remove(sequence)
            self._telling.keep_events(events.failed(sequence, error))
        self._note_load()
        self._tell()

    def _note_load(self) -> None:
        self.load = EngineLoad(
            running=len(self._scheduler.running),
            waiting=self._scheduler.waiting_count,
            kv_used_tokens=self._scheduler.used_tokens,
            generated_tokens=self._counts.generated_tokens,
        )
