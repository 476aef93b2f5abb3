"""The scripted engine: queue, slots, KV budget and steps as a real engine has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable, Sequence

from services.mesh.errors import (
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    MeshError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from services.worker.engines.base import (
    Chunk,
    EngineCapacity,
    EngineLoad,
    EngineRequest,
    Failed,
    Finished,
    ModelDescription,
    Prompt,
    SequenceEvent,
    Started,
    StepOutput,
    Timing,
)
from services.worker.engines.sampling import resolve_sampling
from services.worker.engines.scripted import sequence as sequences
from services.worker.engines.scripted import vocabulary
from services.worker.engines.scripted.jobs import Job, JobQueue
from services.worker.engines.scripted.prompt import (
    check_token_ids,
    prompt_text,
    prompt_token_ids,
)
from services.worker.engines.scripted.settings import ScriptedSettings

REVISION = "scripted-1"
CAPABILITIES = frozenset({"COMPLETE", "CHAT", "RESUME"})
RETRY_AFTER_S = 1.0


class ScriptedEngine:
    """Says a script: no model, no threads, one event loop.

    Temperature, penalties and logit bias are checked, and change nothing, except that greedy
    sampling makes all seeds and choices alike, as it would with a model.
    """

    name = "scripted"

    def __init__(self, settings: ScriptedSettings) -> None:
        self._pace = settings.pace
        self._capacity = EngineCapacity(
            settings.max_running, settings.max_waiting, settings.kv_total_tokens
        )
        self._context_length_tokens = settings.context_length_tokens
        self._model_names = frozenset(settings.model_names)
        self._description = ModelDescription(
            name=settings.model_names[0],
            aliases=settings.model_names[1:],
            revision=REVISION,
            quantization="",
            dtype="",
            context_length_tokens=settings.context_length_tokens,
            vocabulary_size=vocabulary.VOCABULARY_SIZE,
            capabilities=CAPABILITIES,
            loaded_at_s=time.time(),
        )
        self._jobs: dict[Hashable, Job] = {}
        self._queue = JobQueue()
        self._running: list[tuple[Job, sequences.Sequence]] = []
        self._running_count = 0
        self._kv_used_tokens = 0
        self._generated_tokens = 0
        self._prefill_free_s = 0.0
        self._step_due_s = 0.0
        self._step = 0
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def models(self) -> Sequence[ModelDescription]:
        """The one model."""
        return (self._description,)

    @property
    def capacity(self) -> EngineCapacity:
        """As it was set."""
        return self._capacity

    def load(self) -> EngineLoad:
        """Running sequences, waiting requests, and the KV tokens that the running ones reserve."""
        return EngineLoad(
            running=self._running_count,
            waiting=len(self._queue),
            kv_used_tokens=self._kv_used_tokens,
            generated_tokens=self._generated_tokens,
        )

    async def start(self) -> None:
        """There is nothing to load."""

    async def stop(self) -> None:
        """Has `steps` fail what still runs, and end."""
        self._stopping = True
        self._wake.set()

    async def submit(self, request: EngineRequest) -> None:
        """See Engine."""
        if self._stopping:
            raise UnavailableError("the engine is stopping", retry_after_s=RETRY_AFTER_S)
        self._check_model(request.model)
        if request.key in self._jobs:
            raise InvalidRequestError("the request's key is in use", reason="REQUEST_KEY_IN_USE")
        now = time.monotonic()
        if request.deadline_s is not None and request.deadline_s <= now:
            raise DeadlineError("the request's deadline passed before it arrived")
        job = self._make_job(request, now)
        self._jobs[request.key] = job
        self._queue.push(job)
        self._admit(now)
        if len(self._queue) > self._capacity.max_waiting and job.is_waiting:
            self._forget(job)
            raise QueueFullError(
                f"{self._capacity.max_waiting} requests wait already, as many as may",
                retry_after_s=RETRY_AFTER_S,
            )
        self._wake.set()

    def abort(self, key: Hashable) -> None:
        """See Engine."""
        job = self._jobs.get(key)
        if job is not None:
            self._forget(job)
            self._wake.set()

    def grant_credit(self, key: Hashable, tokens: int) -> None:
        """See Engine."""
        job = self._jobs.get(key)
        if job is not None:
            for each in job.sequences:
                each.credit_tokens += tokens
            self._wake.set()

    async def steps(self) -> AsyncIterator[StepOutput]:
        """Runs the steps: the engine works as its consumer reads."""
        while not self._stopping:
            now = time.monotonic()
            events = self._expire(now)
            self._admit(now)
            is_due = now >= self._step_due_s
            has_worked = self._decode(now, events) if is_due else False
            if events:
                self._step += 1
                yield StepOutput(self._step, events)
            if has_worked:
                await asyncio.sleep(max(0.0, self._step_due_s - time.monotonic()))
            else:
                await self._rest(now)
        error = UnavailableError("the engine is stopping", retry_after_s=RETRY_AFTER_S)
        events = [event for job in list(self._jobs.values()) for event in self._fail(job, error)]
        self._step += 1
        yield StepOutput(self._step, events)

    async def tokenize(self, model: str, prompt: Prompt, *, add_special_tokens: bool) -> list[int]:
        """See Engine. There are no special tokens to add."""
        self._check_model(model)
        if isinstance(prompt, tuple):
            check_token_ids(prompt, "prompt.token_ids")
            return list(prompt)
        return vocabulary.encode(prompt_text(prompt))

    async def detokenize(
        self, model: str, token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> str:
        """See Engine."""
        self._check_model(model)
        check_token_ids(tuple(token_ids), "token_ids")
        return vocabulary.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def _check_model(self, model: str) -> None:
        if model not in self._model_names:
            raise ModelNotFoundError(
                f"this worker serves {self._description.name!r}, not {model!r}", field="model"
            )

    def _make_job(self, request: EngineRequest, now: float) -> Job:
        sampling = resolve_sampling(
            request.sampling_fields, {}, vocabulary_size=vocabulary.VOCABULARY_SIZE
        )
        token_ids = prompt_token_ids(request.prompt)
        limit = min(self._context_length_tokens, self._capacity.kv_total_tokens)
        room = limit - len(token_ids)
        if room < (sampling.max_tokens or 1):
            raise ContextLengthError(
                f"the prompt has {len(token_ids)} tokens and max_tokens is "
                f"{sampling.max_tokens or 'not set'}, but a sequence holds {limit} tokens",
                field="prompt" if room < 1 else "sampling.max_tokens",
            )
        length = sequences.choose_length(sampling, room, self._pace.answer_tokens)
        for index, so_far in request.output_so_far.items():
            if index >= sampling.choices:
                raise InvalidRequestError(
                    f"output_so_far is of choice {index}, but there are {sampling.choices}",
                    field="output_so_far.choice_index",
                )
            check_token_ids(so_far.token_ids, "output_so_far.token_ids")
        echo = "" if not request.echo else vocabulary.decode(token_ids, skip_special_tokens=False)
        choices = [
            sequences.Sequence(
                key=request.key,
                choice_index=index,
                prompt_token_ids=token_ids,
                sampling=sampling,
                length=length,
                credit_tokens=request.credit_tokens or sequences.UNLIMITED_CREDIT,
                so_far=request.output_so_far.get(index),
                echo=echo,
            )
            for index in range(sampling.choices)
        ]
        return Job(request, len(token_ids), len(token_ids) + length.tokens, choices, now)

    def _admit(self, now: float) -> None:
        """Moves sequences from the queue to the slots, best first, while slots and KV suffice."""
        while (job := self._queue.first()) is not None:
            if self._running_count >= self._capacity.max_running:
                return
            if self._kv_used_tokens + job.reserved_tokens > self._capacity.kv_total_tokens:
                return
            sequence = job.sequences[job.admitted]
            prefill_tokens = sequence.position + (0 if job.admitted else job.prompt_tokens)
            start = max(now, self._prefill_free_s)
            sequence.admitted_s = now
            sequence.ready_s = start + self._pace.prefill_time_s(prefill_tokens)
            self._prefill_free_s = sequence.ready_s
            self._running.append((job, sequence))
            self._running_count += 1
            self._kv_used_tokens += job.reserved_tokens
            job.admitted += 1
            if not job.is_waiting:
                self._queue.leave()

    def _decode(self, now: float, events: list[SequenceEvent]) -> bool:
        """One step: a token for each sequence whose prompt is computed and that has credit.

        Returns whether there was any such sequence.
        """
        has_worked = False
        still_running = []
        for entry in self._running:
            job, sequence = entry
            if job.is_over:
                continue
            if sequence.ready_s > now:
                still_running.append(entry)
                continue
            if not sequence.started:
                has_worked = True
                self._start_sequence(job, sequence, now, events)
            if sequence.ended is None and sequence.credit_tokens > 0:
                has_worked = True
                sequence.credit_tokens -= 1
                self._generated_tokens += 1
                chunk = sequence.next_chunk()
                if chunk is not None:
                    self._emit(sequence, chunk, events)
            if sequence.ended is None:
                still_running.append(entry)
            else:
                self._finish(job, sequence, now, events)
        self._running = still_running
        if has_worked:
            interval = self._pace.token_interval_s
            if now - self._step_due_s > interval:
                self._step_due_s = now
            self._step_due_s += interval
        return has_worked

    def _start_sequence(
        self, job: Job, sequence: sequences.Sequence, now: float, events: list[SequenceEvent]
    ) -> None:
        sequence.started = True
        sequence.first_token_s = now
        self._emit(sequence, Started(job.prompt_tokens), events)
        if sequence.unsent:
            self._emit(sequence, Chunk(sequence.unsent, ()), events)

    def _finish(
        self, job: Job, sequence: sequences.Sequence, now: float, events: list[SequenceEvent]
    ) -> None:
        ending = sequence.ended
        assert ending is not None
        timing = Timing(
            queue_s=sequence.admitted_s - job.arrived_s,
            prefill_s=sequence.first_token_s - sequence.admitted_s,
            decode_s=now - sequence.first_token_s,
        )
        finished = Finished(
            ending.reason,
            job.prompt_tokens,
            sequence.position,
            0,
            timing,
            ending.stop_string,
            ending.stop_token_id,
        )
        self._emit(sequence, finished, events)
        self._running_count -= 1
        self._kv_used_tokens -= job.reserved_tokens
        job.finished += 1
        if job.finished == len(job.sequences):
            job.is_over = True
            del self._jobs[job.request.key]

    def _emit(
        self,
        sequence: sequences.Sequence,
        event: Started | Chunk | Finished | Failed,
        events: list[SequenceEvent],
    ) -> None:
        events.append(SequenceEvent(sequence.key, sequence.choice_index, sequence.number, event))
        sequence.number += 1

    def _expire(self, now: float) -> list[SequenceEvent]:
        events: list[SequenceEvent] = []
        for job in self._queue.pop_expired(now):
            events.extend(self._fail(job, DeadlineError("the request's deadline passed")))
        return events

    def _fail(self, job: Job, error: MeshError) -> list[SequenceEvent]:
        events: list[SequenceEvent] = []
        for sequence in job.sequences:
            if sequence.ended is None:
                self._emit(sequence, Failed(error), events)
        self._forget(job)
        return events

    def _forget(self, job: Job) -> None:
        """Frees what a job holds."""
        if job.is_waiting:
            self._queue.leave()
        job.is_over = True
        del self._jobs[job.request.key]
        held = job.admitted - job.finished
        self._running_count -= held
        self._kv_used_tokens -= held * job.reserved_tokens

    async def _rest(self, now: float) -> None:
        """Waits until there may be something to do."""
        times = [sequence.ready_s for _, sequence in self._running if sequence.ready_s > now]
        if self._step_due_s > now:
            times.append(self._step_due_s)
        deadline_s = self._queue.next_deadline_s()
        if deadline_s is not None:
            times.append(deadline_s)
        self._wake.clear()
        try:
            async with asyncio.timeout(min(times) - now if times else None):
                await self._wake.wait()
        except TimeoutError:
            return
