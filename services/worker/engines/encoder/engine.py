"""The engine as the worker sees it: calls in from the event loop, their answers out to it.

This module imports no torch: the engine's thread does, when it loads the model.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from services.mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    UnavailableError,
    UnsupportedError,
    WorkerLostError,
)
from services.worker.engines.base import (
    ChatPrompt,
    EngineCapacity,
    EngineCounters,
    EngineLoad,
    EngineRequest,
    ModelDescription,
    Prompt,
    StepOutput,
)
from services.worker.engines.encoder.job import Job, Result, Row
from services.worker.engines.encoder.places import CallPlaces
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.encoding import EmbedCall, Embedded, EmbedInput, ScoreCall, Scored
from services.worker.engines.engine_thread import EngineThread, settle
from services.worker.engines.transformers.threads import bound_spinning

if TYPE_CHECKING:
    from services.worker.engines.encoder.assembly import Assembly
    from services.worker.engines.encoder.batch_loop import Commands
    from services.worker.engines.encoder.text_reading import Cut

T = TypeVar("T")

READ_AT_ONCE = 64
"""Texts that are tokenized before those of another call have their turn."""

RETRY_AFTER_S = 1.0


class EncoderEngine:
    """Serves one checkpoint. See services.worker.engines.base.Engine for each method."""

    name = "encoder"

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._commands: Commands = queue.SimpleQueue()
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="texts")
        self._is_serving = False
        self._loop: asyncio.AbstractEventLoop
        self._thread = EngineThread(
            self.name,
            self._assemble,
            lambda assembly: assembly.loop.run(),
            self._break_down,
        )
        self._assembly: Assembly | None = None
        self._places: CallPlaces
        self._answers: set[asyncio.Future[Sequence[Result]]] = set()
        self._stopped = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def models(self) -> Sequence[ModelDescription]:
        """The one model."""
        return (self._loaded.description,)

    @property
    def capacity(self) -> EngineCapacity:
        """As it was set. There is no KV cache."""
        return self._loaded.capacity

    def load(self) -> EngineLoad:
        """Calls in the running batch, those that wait, and tokens computed so far."""
        loop = self._loaded.loop
        running = loop.running
        return EngineLoad(
            running=running,
            waiting=max(0, self._places.taken - running),
            kv_used_tokens=0,
            generated_tokens=loop.tokens,
        )

    def counters(self) -> EngineCounters:
        """What its batches have done."""
        return self._loaded.loop.counters()

    async def start(self) -> None:
        """Loads the model in the engine's thread, and lets it run."""
        self._loop = asyncio.get_running_loop()
        self._assembly = await self._thread.start()
        capacity = self._assembly.capacity
        self._places = CallPlaces(capacity.max_running + capacity.max_waiting)
        self._is_serving = True

    async def stop(self) -> None:
        """Fails what still runs, and ends the thread, as far as that ends in time.

        A second call changes nothing.
        """
        self._is_serving = False
        self._commands.put(None)
        error = UnavailableError("the engine is stopping", retry_after_s=RETRY_AFTER_S)
        for answer in tuple(self._answers):
            settle(answer, error)
        await self._thread.join()
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._stopped.set()

    async def submit(self, request: EngineRequest) -> None:
        """Refuses: nothing here generates."""
        self._require_model(request.model)
        raise self._not_generating(request.model)

    def abort(self, key: Hashable) -> None:
        """Nothing is generated that could be aborted."""

    def grant_credit(self, key: Hashable, tokens: int) -> None:
        """Nothing is generated that could need credit."""

    async def steps(self) -> AsyncIterator[StepOutput]:
        """None: calls are answered by themselves. Ends when the engine stops, or breaks down."""
        await self._stopped.wait()
        if self._failure is not None:
            raise self._failure
        nothing: Sequence[StepOutput] = ()
        for step in nothing:
            yield step

    async def render(self, model: str, prompt: ChatPrompt) -> str:
        """Refuses: nothing here answers conversations."""
        self._require_model(model)
        raise self._not_generating(model)

    async def embed(self, call: EmbedCall) -> Embedded:
        """Tokenizes in a thread, computes with whatever else is asked, and cuts the vectors."""
        self._require(call.model, call.deadline_s)
        self._check_dimensions(call.dimensions)
        with self._places.place(sum(map(len, call.inputs))):
            cut = self._loaded.reader.cut(call.truncation)
            rows = await self._read_texts(call.inputs, cut, "inputs")
            results = await self._compute(rows, call.deadline_s)
            from services.worker.engines.encoder.vectors import vectors_of

            vectors = await self._in_thread(lambda: vectors_of(results, call.dimensions))
        return Embedded(vectors, _tokens(rows))

    async def score(self, call: ScoreCall) -> Scored:
        """Scores pairs with a cross-encoder; with an embedding model, by the cosines of vectors."""
        self._require(call.model, call.deadline_s)
        if len(call.queries) not in (1, len(call.documents)):
            raise InvalidRequestError(
                f"queries holds {len(call.queries)} texts: it must hold one, or one for each of "
                f"the {len(call.documents)} documents",
                field="queries",
            )
        from services.worker.engines.encoder.vectors import cosines_of, scores_of

        with self._places.place(sum(map(len, (*call.queries, *call.documents)))):
            cut = self._loaded.reader.cut(call.truncation, of_pairs=not self._embeds)
            if not self._embeds:
                rows = await self._read_pairs(call, cut)
                scores = scores_of(await self._compute(rows, call.deadline_s))
                return Scored(scores, _tokens(rows))
            rows = await self._read_texts(call.queries, cut, "queries")
            rows += await self._read_texts(call.documents, cut, "documents")
            results = await self._compute(rows, call.deadline_s)
            queries = len(call.queries)
            return Scored(cosines_of(results[:queries], results[queries:]), _tokens(rows))

    async def tokenize(self, model: str, prompt: Prompt, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text, without the checkpoint's own prompt for embedding."""
        self._require_model(model)
        if isinstance(prompt, ChatPrompt):
            raise self._not_generating(model)
        reader = self._loaded.reader
        if not isinstance(prompt, str):
            reader.require_known(prompt, "prompt.token_ids")
            return list(prompt)
        read = partial(reader.token_ids, prompt, add_special_tokens=add_special_tokens)
        return await self._in_thread(read)

    async def detokenize(
        self, model: str, token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> str:
        """Text of token ids."""
        self._require_model(model)
        reader = self._loaded.reader
        reader.require_known(token_ids, "token_ids")
        read = partial(reader.text_of, token_ids, skip_special_tokens=skip_special_tokens)
        return await self._in_thread(read)

    @property
    def _loaded(self) -> Assembly:
        if self._assembly is None:
            raise UnavailableError("the engine has not started")
        return self._assembly

    def _not_generating(self, model: str) -> UnsupportedError:
        does = "embeds texts" if self._embeds else "scores pairs of texts"
        return UnsupportedError(f"the model {model!r} {does} and generates none", field="model")

    @property
    def _embeds(self) -> bool:
        return "EMBED" in self._loaded.description.capabilities

    async def _read_texts(self, inputs: Sequence[EmbedInput], cut: Cut, field: str) -> list[Row]:
        reader = self._loaded.reader
        rows: list[Row] = []
        for first in range(0, len(inputs), READ_AT_ONCE):
            part = inputs[first : first + READ_AT_ONCE]
            read = partial(reader.read_texts, part, cut, field=field, first=first)
            rows += await self._in_thread(read)
        return rows

    async def _read_pairs(self, call: ScoreCall, cut: Cut) -> list[Row]:
        reader = self._loaded.reader
        rows: list[Row] = []
        for first in range(0, len(call.documents), READ_AT_ONCE):
            documents = call.documents[first : first + READ_AT_ONCE]
            queries = call.queries[first : first + len(documents)]
            if len(call.queries) == 1:
                queries = [call.queries[0]] * len(documents)
            read = partial(reader.read_pairs, queries, documents, cut, first=first)
            rows += await self._in_thread(read)
        return rows

    async def _compute(self, rows: Sequence[Row], deadline_s: float | None) -> Sequence[Result]:
        """What the rows come to, computed in the engine's thread."""
        _require_time(deadline_s)
        self._require_serving()
        answer: asyncio.Future[Sequence[Result]] = self._loop.create_future()
        job = Job(
            rows,
            lambda outcome: self._thread.call(partial(settle, answer, outcome)),
            deadline_s,
        )
        self._answers.add(answer)
        self._commands.put(job)
        try:
            return await answer
        finally:
            self._answers.discard(answer)
            # Whoever is cancelled wants nothing more of it.
            job.leave()

    def _break_down(self, error: Exception) -> None:
        """The thread has ended by itself: a bug. Whoever reads the steps learns of it."""
        self._failure = error
        self._is_serving = False
        self._stopped.set()
        lost = WorkerLostError("the worker's engine broke down", retry_after_s=RETRY_AFTER_S)
        for answer in tuple(self._answers):
            settle(answer, lost)

    def _assemble(self) -> Assembly:
        """Called in the engine's thread."""
        bound_spinning()
        from services.worker.engines.encoder.assembly import assemble

        return assemble(self._settings, self._commands)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Runs what tokenizes, or makes lists, in the thread for it."""
        self._require_serving()
        return await self._loop.run_in_executor(self._reading, work)

    def _check_dimensions(self, dimensions: int | None) -> None:
        description = self._loaded.description
        if not self._embeds:
            raise UnsupportedError(
                f"the model {description.name!r} scores pairs and makes no vectors", field="model"
            )
        most = description.embedding_dimensions
        if dimensions is not None and not 1 <= dimensions <= most:
            raise InvalidRequestError(
                f"dimensions is {dimensions}: it must be from 1 to {most}, which this model's "
                "vectors have",
                field="dimensions",
            )

    def _require(self, model: str, deadline_s: float | None) -> None:
        self._require_serving()
        self._require_model(model)
        _require_time(deadline_s)

    def _require_serving(self) -> None:
        if not self._is_serving:
            raise UnavailableError("the engine is not running", retry_after_s=RETRY_AFTER_S)

    def _require_model(self, model: str) -> None:
        description = self._loaded.description
        if model != description.name and model not in description.aliases:
            raise ModelNotFoundError(f"this worker does not serve model {model!r}", field="model")


def _tokens(rows: Sequence[Row]) -> int:
    return sum(map(len, rows))


def _require_time(deadline_s: float | None) -> None:
    if deadline_s is not None and deadline_s <= time.monotonic():
        raise DeadlineError("the call's deadline passed before it could run")
