"""Embedding and scoring: done as declared, or refused. Holds for every engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.mesh.errors import (
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
    UnsupportedError,
)
from services.worker.engines.base import ChatPrompt
from services.worker.engines.encoding import EmbedCall, ScoreCall, Truncation
from tests.contract.conftest import MAX_RUNNING, MAX_WAITING
from tests.contract.engine_client import EngineClient

TEXTS = ["hello", "hello world, and more of it", "x"]


def embed_call(client: EngineClient, **fields: Any) -> EmbedCall:
    return EmbedCall(**{"request_id": "r", "model": client.model, "inputs": TEXTS} | fields)


def score_call(client: EngineClient, **fields: Any) -> ScoreCall:
    given = {"request_id": "r", "model": client.model, "queries": ["hello"], "documents": TEXTS}
    return ScoreCall(**given | fields)


def can(client: EngineClient, capability: str) -> bool:
    return capability in client.engine.models[0].capabilities


def call_of(client: EngineClient, **fields: Any) -> Awaitable[Any] | None:
    """A call that the engine can answer, with one long text among it; None where it cannot."""
    text = fields.pop("text", "hello")
    if can(client, "EMBED"):
        return client.engine.embed(embed_call(client, inputs=["x", text], **fields))
    if can(client, "SCORE"):
        return client.engine.score(score_call(client, documents=["x", text], **fields))
    return None


async def refuses_to_encode(client: EngineClient) -> bool:
    """Whether the engine generates; then it refuses both calls, naming the model."""
    if can(client, "EMBED") or can(client, "SCORE"):
        return False
    for call in (client.engine.embed(embed_call(client)), client.engine.score(score_call(client))):
        with pytest.raises(UnsupportedError) as refused:
            await call
        assert (refused.value.field, refused.value.reason) == ("model", "CAPABILITY_MISSING")
    return True


async def test_vectors_have_length_1_and_the_declared_dimensions(any_engine: EngineClient) -> None:
    if not can(any_engine, "EMBED"):
        with pytest.raises(UnsupportedError) as refused:
            await any_engine.engine.embed(embed_call(any_engine))
        assert refused.value.field == "model"
        assert any_engine.engine.models[0].embedding_dimensions == 0
        return
    embedded = await any_engine.engine.embed(embed_call(any_engine))
    dimensions = any_engine.engine.models[0].embedding_dimensions
    assert [len(each) for each in embedded.vectors] == [dimensions] * len(TEXTS)
    assert all(math.isclose(math.hypot(*each), 1, abs_tol=1e-5) for each in embedded.vectors)
    engine, model = any_engine.engine, any_engine.model
    ids = [await engine.tokenize(model, each, add_special_tokens=True) for each in TEXTS]
    assert embedded.prompt_tokens == sum(map(len, ids))


async def test_each_document_gets_a_score(any_engine: EngineClient) -> None:
    if await refuses_to_encode(any_engine):
        return
    scored = await any_engine.engine.score(score_call(any_engine))
    assert len(scored.scores) == len(TEXTS)
    assert all(-1.001 <= each <= 1.001 for each in scored.scores)
    assert scored.prompt_tokens > 0


async def test_what_encodes_generates_nothing(any_engine: EngineClient) -> None:
    if can(any_engine, "COMPLETE"):
        return
    engine, model = any_engine.engine, any_engine.model
    prompt = ChatPrompt([{"role": "user", "content": "hello"}])
    refused: list[Callable[[], Awaitable[Any]]] = [
        lambda: any_engine.submit("hello"),
        lambda: engine.render(model, prompt),
        lambda: engine.tokenize(model, prompt, add_special_tokens=True),
    ]
    for call in refused:
        with pytest.raises(UnsupportedError) as raised:
            await call()
        assert raised.value.field == "model"
    with pytest.raises(ModelNotFoundError):
        await any_engine.submit(own={"model": "nobody"})
    any_engine.engine.abort("unknown")
    any_engine.engine.grant_credit("unknown", 1)


async def test_an_unknown_model(any_engine: EngineClient) -> None:
    engine = any_engine.engine
    for call in (
        engine.embed(embed_call(any_engine, model="nobody")),
        engine.score(score_call(any_engine, model="nobody")),
    ):
        with pytest.raises(ModelNotFoundError):
            await call


async def test_dimensions_that_the_model_does_not_have(any_engine: EngineClient) -> None:
    if not can(any_engine, "EMBED"):
        return
    for dimensions in (0, any_engine.engine.models[0].embedding_dimensions + 1):
        with pytest.raises(InvalidRequestError) as refused:
            await any_engine.engine.embed(embed_call(any_engine, dimensions=dimensions))
        assert refused.value.field == "dimensions"


async def test_inputs_that_cannot_be(any_engine: EngineClient) -> None:
    if not can(any_engine, "EMBED"):
        return
    for wrong in ((), (10**6,), (-1,)):
        with pytest.raises(InvalidRequestError) as refused:
            await any_engine.engine.embed(embed_call(any_engine, inputs=["x", wrong]))
        assert refused.value.field == "inputs[1]"


async def test_queries_that_are_neither_one_nor_one_each(any_engine: EngineClient) -> None:
    if await refuses_to_encode(any_engine):
        return
    with pytest.raises(InvalidRequestError) as refused:
        await any_engine.engine.score(score_call(any_engine, queries=["a", "b"]))
    assert refused.value.field == "queries"


@pytest.mark.parametrize("text", ["word " * 500, "word " * 200_000])
async def test_a_long_text_is_refused_or_cut(any_engine: EngineClient, text: str) -> None:
    call = call_of(any_engine, text=text)
    if call is None:
        return
    with pytest.raises(ContextLengthError) as refused:
        await call
    assert refused.value.field in ("inputs[1]", "documents[1]")
    context_tokens = any_engine.engine.models[0].context_length_tokens
    for truncation, most in (
        (Truncation(truncate=True), context_tokens),
        (Truncation(tokens=20), 20),
    ):
        cut = await call_of(any_engine, text=text, truncation=truncation)  # type: ignore[misc]
        short = await call_of(any_engine, text="x", truncation=truncation)  # type: ignore[misc]
        # One of the two texts is "x" in both.
        assert 0 < cut.prompt_tokens - short.prompt_tokens < most
        assert cut.prompt_tokens <= 2 * most


@pytest.mark.parametrize("tokens", [0, 1, 10_000])
async def test_a_cut_that_cannot_be(any_engine: EngineClient, tokens: int) -> None:
    call = call_of(any_engine, truncation=Truncation(tokens=tokens))
    if call is None:
        return
    with pytest.raises(InvalidRequestError) as refused:
        await call
    assert refused.value.field == "truncate_tokens"


async def test_a_deadline_that_has_passed(any_engine: EngineClient) -> None:
    call = call_of(any_engine, deadline_s=time.monotonic() - 1)
    if call is None:
        return
    with pytest.raises(DeadlineError):
        await call


async def test_more_calls_than_may_wait(any_engine: EngineClient) -> None:
    if can(any_engine, "COMPLETE"):
        return
    calls = [call_of(any_engine) for _ in range(MAX_RUNNING + MAX_WAITING + 4)]
    outcomes = await asyncio.gather(*(each for each in calls if each), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, QueueFullError)]
    assert len(refused) == 4
    assert all(each.retry_after_s for each in refused)
    assert sum(not isinstance(each, Exception) for each in outcomes) == MAX_RUNNING + MAX_WAITING
    await any_engine.until_idle()
    again = await call_of(any_engine)  # type: ignore[misc]
    assert again.prompt_tokens > 0


async def test_a_stopped_engine_refuses(any_engine: EngineClient) -> None:
    if can(any_engine, "COMPLETE"):
        return
    await any_engine.engine.stop()
    with pytest.raises(UnavailableError):
        await call_of(any_engine)  # type: ignore[misc]
    await any_engine.engine.stop()


async def test_it_describes_itself_and_counts(any_engine: EngineClient) -> None:
    if can(any_engine, "COMPLETE"):
        return
    (model,) = any_engine.engine.models
    assert model.revision
    assert model.context_length_tokens > 0
    assert model.vocabulary_size > 0
    answer = await call_of(any_engine)  # type: ignore[misc]
    assert any_engine.engine.load().generated_tokens == answer.prompt_tokens
    counters = any_engine.engine.counters()
    assert counters.prefilled_tokens == answer.prompt_tokens
    assert counters.steps
    assert counters.phase_s["forward"] > 0
