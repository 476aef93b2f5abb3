"""The engine as the worker sees it: requests in from the event loop, steps out to it.

This module imports no torch: the engine's thread does, when it loads the model.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from services.mesh.errors import (
    DeadlineError,
    ModelNotFoundError,
    UnavailableError,
)
from services.worker.engines.base import (
    ChatPrompt,
    EngineCapacity,
    EngineCounters,
    EngineLoad,
    EngineRequest,
    Failed,
    Finished,
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
from services.worker.engines.engine_thread import EngineThread
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import commands
from services.worker.engines.transformers.compiling import Compiling
from services.worker.engines.transformers.outbox import Outbox
from services.worker.engines.transformers.scheduling.places import Places
from services.worker.engines.transformers.threads import bound_spinning

if TYPE_CHECKING:
    from services.worker.engines.transformers.assembly import Assembly

T = TypeVar("T")

UNREAD_STEPS = 64
"""Steps that may lie unread before the engine waits for its consumer."""


class TransformersEngine:
    """Serves one checkpoint. See services.worker.engines.base.Engine for each method."""

    name = "transformers"

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._commands: commands.Commands = queue.SimpleQueue()
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompts")
        self._compiling = Compiling()
        self._step = 0
        self._is_serving = False
        self._loop: asyncio.AbstractEventLoop
        self._thread = EngineThread(
            self.name,
            self._assemble,
            lambda assembly: assembly.step_loop.run(),
            self._break_down,
        )
        self._failure: Exception | None = None
        self._assembly: Assembly | None = None
        self._outbox: Outbox
        self._places: Places

    @property
    def models(self) -> Sequence[ModelDescription]:
        """The one model."""
        return (self._loaded.description,)

    @property
    def capacity(self) -> EngineCapacity:
        """What the KV cache and the settings allow."""
        return self._loaded.capacity

    def load(self) -> EngineLoad:
        """How busy it is. Requests whose prompt is still being read wait, too."""
        load = self._loaded.step_loop.load
        return EngineLoad(
            running=load.running,
            waiting=max(load.waiting, self._places.taken - load.running),
            kv_used_tokens=load.kv_used_tokens,
            generated_tokens=load.generated_tokens,
        )

    def counters(self) -> EngineCounters:
        """What its steps and its compiler have done."""
        counters = self._loaded.step_loop.counters()
        if self._loaded.compiler is None:
            return counters
        compiling = self._loaded.compiler.counters()
        return replace(
            counters,
            forms_compiled=compiling.compiled,
            form_compile_s=compiling.compile_s,
            form_cache_hits=compiling.cache_hits,
            masks=compiling.masks,
            mask_s=compiling.mask_s,
        )

    async def start(self) -> None:
        """Loads the model in the engine's thread, and lets it run."""
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop, UNREAD_STEPS, self._wake)
        self._assembly = await self._thread.start()
        capacity = self._assembly.capacity
        self._places = Places(capacity.max_running, capacity.max_waiting)
        self._is_serving = True

    async def stop(self) -> None:
        """Ends the thread, the steps, and what still runs, as far as that ends in time.

        A second call changes nothing.
        """
        self._is_serving = False
        self._commands.put(commands.Stop())
        if await self._thread.join():
            self._outbox.close()
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._compiling.close()
        if self._assembly is not None and self._assembly.compiler is not None:
            self._assembly.compiler.close()

    async def submit(self, request: EngineRequest) -> None:
        """Compiles the output's form and reads the prompt in threads, then queues the request."""
        self._require_serving()
        self._require_model(request.model)
        arrived_s = time.monotonic()
        _require_time(request, arrived_s)
        choices = request.sampling_fields.get("choices") or 1
        draws = request.sampling_fields.get("best_of") or choices
        self._places.take(request.key, choices, hidden=max(0, draws - choices))
        try:
            admission = self._loaded.admission
            await self._compile(request)
            sequences = await self._read(lambda: admission.sequences(request, arrived_s))
            _require_time(request, time.monotonic())
            self._require_serving()
        except BaseException:
            self._places.give_back(request.key)
            raise
        if request.key in self._places:
            self._commands.put(commands.Add(sequences))

    def abort(self, key: Hashable) -> None:
        """Takes the request out before the next step."""
        self._places.give_back(key)
        self._commands.put(commands.Abort(key))

    def grant_credit(self, key: Hashable, tokens: int) -> None:
        """Counts from the next step on."""
        self._commands.put(commands.Grant(key, tokens))

    async def steps(self) -> AsyncIterator[StepOutput]:
        """The outputs, in order, until the engine stops, or breaks down."""
        async for output in self._outbox:
            yield output
        if self._failure is not None:
            raise self._failure

    async def render(self, model: str, prompt: ChatPrompt) -> str:
        """What the chat template makes of a conversation."""
        self._require_model(model)
        prompts = self._loaded.prompts
        return await self._read(lambda: prompts.render(prompt))

    async def embed(self, call: EmbedCall) -> Embedded:
        """Refuses: nothing here embeds."""
        refuse_to_encode(call.model, self._names, what="embeds")

    async def score(self, call: ScoreCall) -> Scored:
        """Refuses: nothing here scores."""
        refuse_to_encode(call.model, self._names, what="scores")

    async def tokenize(self, model: str, prompt: Prompt, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt."""
        self._require_model(model)
        prompts = self._loaded.prompts
        tokens = await self._read(
            lambda: prompts.read(prompt, add_special_tokens=add_special_tokens)
        )
        return list(tokens.ids)

    async def detokenize(
        self, model: str, token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> str:
        """Text of token ids."""
        self._require_model(model)
        loaded = self._loaded
        loaded.prompts.require_known(tuple(token_ids), "token_ids")
        decode = loaded.texts.decode if skip_special_tokens else loaded.texts.decode_all
        return await self._read(lambda: decode(token_ids))

    @property
    def _loaded(self) -> Assembly:
        if self._assembly is None:
            raise UnavailableError("the engine has not started")
        return self._assembly

    def _assemble(self) -> Assembly:
        """Called in the engine's thread."""
        bound_spinning()
        from services.worker.engines.transformers.assembly import assemble

        return assemble(
            self._settings, self._commands, self._publish, lambda: not self._outbox.is_full
        )

    def _break_down(self, error: Exception) -> None:
        """The thread has ended by itself: a bug. Whoever reads the steps learns of it."""
        self._failure = error
        self._is_serving = False
        self._outbox.close()

    def _publish(self, events: Sequence[SequenceEvent]) -> None:
        """Called in the engine's thread."""
        self._step += 1
        self._outbox.put(StepOutput(self._step, events))
        ended = [each.key for each in events if isinstance(each.event, Finished | Failed)]
        if ended:
            self._loop.call_soon_threadsafe(self._end_choices, ended)

    def _end_choices(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            self._places.end_choice(key)

    def _wake(self) -> None:
        self._commands.put(commands.Wake())

    async def _read(self, work: Callable[[], T]) -> T:
        """Runs what tokenizes or renders in the thread for it."""
        return await self._loop.run_in_executor(self._reading, work)

    async def _compile(self, request: EngineRequest) -> None:
        """Has the form of the output compiled, so that reading the request does not wait for it."""
        compiler = self._loaded.compiler
        form = request.sampling_fields.get("constraint")
        if compiler is not None and form is not None:
            await self._compiling.compile(compiler, form)

    def _require_serving(self) -> None:
        if not self._is_serving:
            raise UnavailableError("the engine is not running")

    @property
    def _names(self) -> Sequence[str]:
        description = self._loaded.description
        return (description.name, *description.aliases)

    def _require_model(self, model: str) -> None:
        if model not in self._names:
            raise ModelNotFoundError(f"this worker does not serve model {model!r}", field="model")


def _require_time(request: EngineRequest, now_s: float) -> None:
    if request.deadline_s is not None and request.deadline_s <= now_s:
        raise DeadlineError("the request's deadline passed before it could run")
