"""Embed and Score on a real worker with a real encoder: batched, bounded, cancelled, drained."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import torch

from services.mesh import status
from services.worker.engines.encoder import EncoderEngine, EncoderSettings
from services.worker.engines.encoder.job import Row
from services.worker.engines.settings import EngineSettings
from tests.encoders import HIDDEN, encoder
from tests.integration.workers import Worker, eventually, worker
from tokenmesh.mesh.v1 import model_pb2
from tokenmesh.worker.v1 import worker_pb2

MODEL = "vectors"


class Gate:
    """Stands before a model's computing: it can be held, and can fail for some rows."""

    def __init__(self, model: Any) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[list[int]] = []
        self.poison = -1
        self.memory_rows = 10**9
        self._model = model

    def compute(self, rows: Sequence[Row]) -> torch.Tensor:
        self.batches.append([len(row) for row in rows])
        assert self.open.wait(60)
        if len(rows) > self.memory_rows:
            raise torch.OutOfMemoryError("out of memory")
        if any(self.poison in row.token_ids for row in rows):
            raise ValueError("poison")
        result: torch.Tensor = self._model.compute(rows)
        return result


@asynccontextmanager
async def serving(
    name: str = "bert", *, max_running: int = 64, **settings: Any
) -> AsyncIterator[tuple[Worker, Gate]]:
    """A worker of a tiny encoder, and the gate before its computing."""
    given = EngineSettings(
        str(encoder(name)),
        model_names=(MODEL,),
        device="cpu",
        threads=1,
        max_running=max_running,
        max_waiting=8,
    )
    engine = EncoderEngine(EncoderSettings(given, **settings))
    async with worker(engine=engine) as served:
        loop = engine._loaded.loop
        gate = Gate(loop._model)
        loop._model = gate  # type: ignore[assignment]
        try:
            yield served, gate
        finally:
            gate.open.set()


def embed_request(*texts: str, **fields: Any) -> worker_pb2.EmbedRequest:
    inputs = [worker_pb2.EmbedInput(text=text) for text in texts]
    return worker_pb2.EmbedRequest(model=MODEL, inputs=inputs, **fields)


async def error_of(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return status.from_rpc_error(raised.value)


async def test_it_embeds_scores_and_describes_itself() -> None:
    async with serving() as (served, _):
        embedded = await served.stub.Embed(embed_request("hello", "world", dimensions=3))
        scored = await served.stub.Score(
            worker_pb2.ScoreRequest(model=MODEL, queries=["hello"], documents=["hello", "x"])
        )
        described = await served.stub.DescribeModels(worker_pb2.DescribeModelsRequest())
        counted = served.metric("requests_total", model=MODEL, code="OK", finish_reason="")
        tokens = served.metric("tokens_total", model=MODEL, kind="prompt")
    assert [len(each.values) for each in embedded.embeddings] == [3, 3]
    assert scored.scores[0] == pytest.approx(1, abs=1e-5)
    (model,) = described.models
    assert list(model.capabilities) == [model_pb2.CAPABILITY_EMBED, model_pb2.CAPABILITY_SCORE]
    assert (model.engine, model.embedding_dimensions) == ("encoder", HIDDEN)
    assert counted == 2
    assert tokens == embedded.usage.prompt_tokens + scored.usage.prompt_tokens


async def test_calls_of_many_callers_share_a_batch() -> None:
    async with serving() as (served, gate):
        gate.open.clear()
        calls = [served.stub.Embed(embed_request(f"text {number}")) for number in range(20)]
        await eventually(lambda: served.engine.load().waiting == 19)
        gate.open.set()
        await asyncio.gather(*calls)
    # One ran alone while the others came.
    assert sum(map(len, gate.batches)) == 20
    assert len(gate.batches) <= 3


async def test_only_the_call_with_the_text_at_fault_fails() -> None:
    async with serving() as (served, gate):
        ids = await served.engine.tokenize(MODEL, "東", add_special_tokens=False)
        gate.poison = ids[0]
        gate.open.clear()
        calls = [
            served.stub.Embed(embed_request("東" if number == 5 else f"text {number}"))
            for number in range(9)
        ]
        await eventually(lambda: served.engine.load().waiting == 8)
        gate.open.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        again = await served.stub.Embed(embed_request("text"))
    failed = [number for number, each in enumerate(outcomes) if isinstance(each, Exception)]
    assert failed == [5]
    assert outcomes[5].code().name == "INTERNAL"  # type: ignore[union-attr]
    assert len(again.embeddings) == 1


async def test_a_batch_that_does_not_fit_the_memory_is_computed_in_halves() -> None:
    async with serving() as (served, gate):
        gate.memory_rows = 3
        embedded = await served.stub.Embed(embed_request(*[f"text {n}" for n in range(16)]))
        counters = served.engine.counters()
        gate.memory_rows = 0
        error = await error_of(served.stub.Embed(embed_request("text")))
    assert len(embedded.embeddings) == 16
    assert counters.out_of_memory
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")


async def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    async with serving() as (served, gate):
        gate.open.clear()
        running = served.stub.Embed(embed_request("one"))
        await eventually(lambda: served.engine.load().running == 1)
        left = served.stub.Embed(embed_request("two words"))
        late = served.stub.Embed(embed_request("three words more"), timeout=0.3)
        await eventually(lambda: served.engine.load().waiting == 2)
        left.cancel()
        assert (await error_of(late)).code == "DEADLINE_EXCEEDED"
        await eventually(lambda: served.engine.load().waiting == 0)
        gate.open.set()
        await running
        await served.stub.Embed(embed_request("four"))
        cancelled = served.metric("requests_total", model=MODEL, code="CANCELLED", finish_reason="")
    assert sum(map(len, gate.batches)) == 2
    assert cancelled >= 1


async def test_a_large_call_does_not_hold_up_a_small_one() -> None:
    async with serving(batch_tokens=64) as (served, gate):
        gate.open.clear()
        large = served.stub.Embed(embed_request(*["some words of a text"] * 128))
        await eventually(lambda: bool(gate.batches))
        small = served.stub.Embed(embed_request("x"))
        await eventually(lambda: served.engine.load().waiting == 1)
        gate.open.set()
        await small
        seen = len(gate.batches)
        await large
    assert seen < len(gate.batches)


async def test_a_draining_worker_takes_nothing_new_and_ends_what_runs() -> None:
    async with serving() as (served, gate):
        gate.open.clear()
        running = served.stub.Embed(embed_request("one"))
        await eventually(lambda: served.engine.load().running == 1)
        served.served.drain.begin(60)
        error = await error_of(served.stub.Embed(embed_request("two")))
        finishing = asyncio.create_task(served.served.drain.finish(60))
        await asyncio.sleep(0.05)
        assert not finishing.done()
        gate.open.set()
        await running
        await finishing
    assert (error.code, error.reason) == ("UNAVAILABLE", "NO_WORKER")


async def test_generation_is_refused() -> None:
    async with serving() as (served, _), served.generate() as stream:
        await stream.start(1, model=MODEL)
        await stream.read_until_ended(1)
        error = stream.error(1)
    assert (error.code, error.reason, error.field) == (
        "UNIMPLEMENTED",
        "CAPABILITY_MISSING",
        "model",
    )


async def test_an_engine_that_breaks_down_ends_its_calls_and_its_worker() -> None:
    async with serving() as (served, gate):
        gate.open.clear()
        running = served.stub.Embed(embed_request("one"))
        await eventually(lambda: served.engine.load().running == 1)
        engine: Any = served.engine
        engine._loaded.loop._hand_out = None
        gate.open.set()
        error = await error_of(running)
        with pytest.raises(TypeError):
            await served.served.steps
    assert (error.code, error.reason) == ("UNAVAILABLE", "WORKER_LOST")
