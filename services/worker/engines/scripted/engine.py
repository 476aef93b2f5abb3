"""The scripted engine: queue, slots, KV budget and steps as a real engine has them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Hashable, Sequence

from services.mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    MeshError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from services.worker.chat_formats.capabilities import format_capabilities
from services.worker.engines.base import (
    ChatPrompt,
    EngineCapacity,
    EngineCounters,
    EngineLoad,
    EngineRequest,
    Failed,
    ModelDescription,
    Prompt,
    SequenceEvent,
    StepOutput,
)
from services.worker.engines.encoding import (
    EmbedCall,
    Embedded,
    ScoreCall,
    Scored,
    refuse_to_encode,
)
from services.worker.engines.scripted import vocabulary
from services.worker.engines.scripted.intake import make_job
from services.worker.engines.scripted.jobs import Job, JobQueue
from services.worker.engines.scripted.prompt import check_token_ids, prompt_text
from services.worker.engines.scripted.sequence import Sequence as Choice
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.scripted.slots import Slots

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
        self._settings = settings
        self._capacity = EngineCapacity(
            settings.max_running, settings.max_waiting, settings.kv_total_tokens
        )
        self._model_names = frozenset(settings.model_names)
        self._description = ModelDescription(
            name=settings.model_names[0],
            aliases=settings.model_names[1:],
            revision=REVISION,
            quantization="",
            dtype="",
            context_length_tokens=settings.context_length_tokens,
            vocabulary_size=vocabulary.VOCABULARY_SIZE,
            capabilities=CAPABILITIES | format_capabilities(settings.chat_format),
            loaded_at_s=time.time(),
            chat_format=settings.chat_format,
        )
        self._jobs: dict[Hashable, Job] = {}
        self._queue = JobQueue()
        self._slots = Slots(settings)
        self._generated_tokens = 0
        self._computed_steps = 0
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
            running=self._slots.taken,
            waiting=len(self._queue),
            kv_used_tokens=self._slots.kv_used_tokens,
            generated_tokens=self._generated_tokens,
        )

    def counters(self) -> EngineCounters:
        """Steps and prefix cache. It has no phases, no blocks, and preempts nobody."""
        return EngineCounters(
            steps=self._computed_steps,
            decoded_tokens=self._generated_tokens,
            prefilled_tokens=self._slots.queried_tokens - self._slots.hit_tokens,
            prefix_queried_tokens=self._slots.queried_tokens,
            prefix_hit_tokens=self._slots.hit_tokens,
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
        job = make_job(request, self._settings, now)
        self._jobs[request.key] = job
        self._queue.push(job)
        self._slots.admit(self._queue, now)
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
            self._wake.clear()
            now = time.monotonic()
            events = self._expire(now)
            self._slots.admit(self._queue, now)
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

    async def render(self, model: str, prompt: ChatPrompt) -> str:
        """See Engine."""
        self._check_model(model)
        return prompt_text(prompt)

    async def embed(self, call: EmbedCall) -> Embedded:
        """Refuses: nothing here embeds."""
        refuse_to_encode(call.model, self._settings.model_names, what="embeds")

    async def score(self, call: ScoreCall) -> Scored:
        """Refuses: nothing here scores."""
        refuse_to_encode(call.model, self._settings.model_names, what="scores")

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

    def _decode(self, now: float, events: list[SequenceEvent]) -> bool:
        """One step: a token for each sequence whose prompt is computed and that has credit.

        Returns whether there was any such sequence.
        """
        has_worked = False
        still_running = []
        for entry in self._slots.entries:
            job, sequence = entry
            if job.is_over:
                continue
            if sequence.ready_s > now:
                still_running.append(entry)
                continue
            if not sequence.started:
                has_worked = True
                events.extend(sequence.start(job.prompt_tokens, job.cached_tokens, now))
            if sequence.ended is None and sequence.credit_tokens > 0:
                has_worked = True
                sequence.credit_tokens -= 1
                self._generated_tokens += 1
                chunk = sequence.next_chunk()
                if chunk is not None:
                    events.append(sequence.event(chunk))
            if sequence.ended is None:
                still_running.append(entry)
            else:
                events.append(
                    sequence.finish(job.prompt_tokens, job.cached_tokens, job.arrived_s, now)
                )
                self._finish(job, sequence)
        self._slots.entries = still_running
        if has_worked:
            self._computed_steps += 1
            interval = self._settings.pace.token_interval_s
            if now - self._step_due_s > interval:
                self._step_due_s = now
            self._step_due_s += interval
        return has_worked

    def _finish(self, job: Job, sequence: Choice) -> None:
        """One sequence of the job has ended."""
        self._slots.release(job, 1)
        self._slots.keep([*job.prompt_token_ids, *sequence.output_token_ids()])
        job.finished += 1
        if job.finished == len(job.sequences):
            job.is_over = True
            del self._jobs[job.request.key]

    def _expire(self, now: float) -> list[SequenceEvent]:
        events: list[SequenceEvent] = []
        for job in self._queue.pop_expired(now):
            events.extend(self._fail(job, DeadlineError("the request's deadline passed")))
        return events

    def _fail(self, job: Job, error: MeshError) -> list[SequenceEvent]:
        events = [each.event(Failed(error)) for each in job.sequences if each.ended is None]
        self._forget(job)
        return events

    def _forget(self, job: Job) -> None:
        """Frees what a job holds."""
        if job.is_waiting:
            self._queue.leave()
        job.is_over = True
        del self._jobs[job.request.key]
        self._slots.release(job, job.admitted - job.finished)

    async def _rest(self, now: float) -> None:
        """Waits until there may be something to do."""
        times = [self._slots.next_ready_s(now), self._queue.next_deadline_s()]
        if self._step_due_s > now:
            times.append(self._step_due_s)
        limit_s = min((each - now for each in times if each is not None), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
