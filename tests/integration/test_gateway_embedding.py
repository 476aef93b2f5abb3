"""EmbeddingService: what a gateway asks of workers, and what it makes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.keys.hashing import digest_of
from services.gateway.keys.key import Key, KeyLimits
from services.mesh.errors import (
    ContextLengthError,
    InternalError,
    NoWorkerError,
    OutOfMemoryError,
    QueueFullError,
    UnavailableError,
)
from tests.fakes.fake_worker import (
    MODEL,
    EncodeScript,
    FakeWorker,
    at_once,
    embedding_model,
    fake_model,
)
from tests.fakes.gateway_mesh import chat_request, controller, error_of, eventually, gateway
from tokenmesh.gateway.v1 import embedding_pb2


def embed_request(*texts: str, **fields: Any) -> embedding_pb2.EmbedRequest:
    inputs = [embedding_pb2.EmbedInput(text=text) for text in texts]
    return embedding_pb2.EmbedRequest(**{"model": MODEL, "inputs": inputs} | fields)


def score_request(
    queries: list[str], documents: list[str], **fields: Any
) -> embedding_pb2.ScoreRequest:
    given = {"model": MODEL, "queries": queries, "documents": documents}
    return embedding_pb2.ScoreRequest(**given | fields)


def raising(error: Exception, *, times: int = 1) -> EncodeScript:
    """Fails the first calls."""
    left = times

    async def encode(_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return encode


async def never(_: Any) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as started:
        yield started


def worker(address: str, worker_id: str = "worker", encode: EncodeScript = at_once) -> FakeWorker:
    return FakeWorker([address], worker_id=worker_id, models=[embedding_model()], encode=encode)


async def test_vectors_come_in_the_order_of_the_inputs(address: str) -> None:
    async with worker(address) as served, gateway(address) as client:
        await client.wait_served(1)
        request = embed_request("a", "four", dimensions=2, truncate=True, truncate_tokens=9)
        request.inputs.add().token_ids.values.extend([7, 8])
        answer = await client.embedding.Embed(request)
        (call,) = served.encode_calls
    assert [list(each.values) for each in answer.embeddings] == [[1, 0.5], [4, 0.5], [15, 0.5]]
    assert (answer.model, answer.usage.prompt_tokens) == (MODEL, 3)
    assert (call.dimensions, call.truncate, call.truncate_tokens) == (2, True, 9)  # type: ignore[union-attr]
    assert call.request_id


async def test_scores_come_in_the_order_of_the_documents(address: str) -> None:
    async with worker(address), gateway(address) as client:
        await client.wait_served(1)
        one = await client.embedding.Score(score_request(["four"], ["a", "bc"]))
        each = await client.embedding.Score(score_request(["x", "four"], ["a", "bc"]))
        labels = {"model": MODEL, "operation": "score", "code": "OK", "finish_reason": ""}
        assert client.metric("tokenmesh_gateway_requests_total", **labels) == 2
        tokens = client.metric("tokenmesh_gateway_tokens_total", model=MODEL, kind="prompt")
        assert tokens == 4
    assert (list(one.scores), list(each.scores)) == ([3, 2], [0, 2])


async def test_a_large_request_goes_in_parts_to_all_workers(address: str) -> None:
    texts = [str(number) * (number % 7 + 1) for number in range(600)]
    async with worker(address, "a") as a, worker(address, "b") as b, gateway(address) as client:
        await client.wait_served(2)
        answer = await client.embedding.Embed(embed_request(*texts))
        calls = [*a.encode_calls, *b.encode_calls]
        assert len(calls) == 5
        assert a.encode_calls
        assert b.encode_calls
    assert [each.values[0] for each in answer.embeddings] == [len(text) for text in texts]
    assert answer.usage.prompt_tokens == 600


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("gone"),
        NoWorkerError("draining"),
        QueueFullError("full", retry_after_s=1.0),
    ],
)
async def test_another_worker_answers_where_one_fails(address: str, error: Exception) -> None:
    script = raising(error)
    async with (
        worker(address, "a", script) as a,
        worker(address, "b", script) as b,
        gateway(address) as client,
    ):
        await client.wait_served(2)
        answer = await client.embedding.Embed(embed_request("abc"))
        assert len(a.encode_calls) == len(b.encode_calls) == 1
        assert answer.embeddings[0].values[0] == 3


async def test_a_part_is_computed_elsewhere_when_its_worker_dies(address: str) -> None:
    async with (
        worker(address, "a", never) as a,
        worker(address, "b") as b,
        gateway(address) as client,
    ):
        await client.wait_served(2)
        texts = [f"text {number}" for number in range(300)]
        call = asyncio.ensure_future(client.embedding.Embed(embed_request(*texts)))
        await eventually(lambda: len(a.encode_calls) + len(b.encode_calls) == 3)
        assert a.encode_calls
        await a.die()
        answer = await call
        assert len(answer.embeddings) == 300
        assert len(b.encode_calls) == 3
        assert client.metric("tokenmesh_gateway_requests_running", model=MODEL) == 0


async def test_what_kills_workers_is_not_given_to_all_of_them(address: str) -> None:
    dying = raising(UnavailableError("gone"), times=99)
    workers = [worker(address, name, dying) for name in ("a", "b", "c")]
    async with workers[0], workers[1], workers[2], gateway(address) as client:
        await client.wait_served(3)
        error = await error_of(client.embedding.Embed(embed_request("abc")))
        assert sum(len(each.encode_calls) for each in workers) == 2
    assert error.code == "UNAVAILABLE"


@pytest.mark.parametrize(("poison_deaths", "risked"), [(0, 3), (1, 1), (2, 2), (9, 3)])
async def test_so_many_workers_are_risked_as_the_setting_says(
    address: str, poison_deaths: int, risked: int
) -> None:
    dying = raising(UnavailableError("gone"), times=99)
    workers = [worker(address, name, dying) for name in ("a", "b", "c", "d")]
    async with (
        workers[0],
        workers[1],
        workers[2],
        workers[3],
        gateway(address, poison_deaths=poison_deaths) as client,
    ):
        await client.wait_served(4)
        await error_of(client.embedding.Embed(embed_request("abc")))
        await error_of(client.embedding.Score(score_request(["a"], ["b"])))
        assert sum(len(each.encode_calls) for each in workers) == 2 * risked


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfMemoryError("too much"), "RESOURCE_EXHAUSTED"),
        (InternalError("a bug"), "INTERNAL"),
        (ContextLengthError("inputs[0] has too much", field="inputs[0]"), "INVALID_ARGUMENT"),
    ],
)
async def test_what_no_other_worker_would_do_better(
    address: str, error: Exception, code: str
) -> None:
    async with worker(address, encode=raising(error)) as served, gateway(address) as client:
        await client.wait_served(1)
        found = await error_of(client.embedding.Embed(embed_request("abc")))
        assert len(served.encode_calls) == 1
    assert found.code == code


async def test_a_text_at_fault_has_the_number_that_the_client_gave_it(address: str) -> None:
    async def encode(request: Any) -> None:
        for number, each in enumerate(request.inputs):
            if each.text == "long":
                field = f"inputs[{number}]"
                raise ContextLengthError(f"{field} has 9 tokens", field=field)

    texts = ["x"] * 400
    texts[333] = "long"
    async with worker(address, encode=encode), gateway(address) as client:
        await client.wait_served(1)
        error = await error_of(client.embedding.Embed(embed_request(*texts)))
    assert (error.field, error.message) == ("inputs[333]", "inputs[333] has 9 tokens")
    assert error.reason == "CONTEXT_LENGTH_EXCEEDED"


async def test_a_deadline_ends_the_call_at_the_worker(address: str) -> None:
    ended = asyncio.Event()

    async def encode(_: Any) -> None:
        try:
            await never(_)
        finally:
            ended.set()

    async with worker(address, encode=encode), gateway(address) as client:
        await client.wait_served(1)
        metadata = (("x-request-timeout", "300ms"),)
        error = await error_of(client.embedding.Embed(embed_request("a"), metadata=metadata))
        await asyncio.wait_for(ended.wait(), 20)
    assert error.code == "DEADLINE_EXCEEDED"
    assert "0.3 s" in error.message


async def test_a_client_that_leaves_ends_the_call_at_the_worker(address: str) -> None:
    ended = asyncio.Event()

    async def encode(_: Any) -> None:
        try:
            await never(_)
        finally:
            ended.set()

    async with worker(address, encode=encode) as served, gateway(address) as client:
        await client.wait_served(1)
        call = client.embedding.Embed(embed_request("a"))
        await eventually(lambda: bool(served.encode_calls))
        call.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        running = "tokenmesh_gateway_requests_running"
        await eventually(lambda: client.metric(running, model=MODEL) == 0)


async def test_a_full_gateway_refuses(address: str) -> None:
    async with worker(address, encode=never) as served, gateway(address, max_requests=1) as client:
        await client.wait_served(1)
        held = client.embedding.Embed(embed_request("a"))
        await eventually(lambda: bool(served.encode_calls))
        error = await error_of(client.embedding.Embed(embed_request("a")))
        held.cancel()
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert error.retry_after_s


async def test_models_that_cannot(address: str) -> None:
    chat = FakeWorker([address], worker_id="chat", models=[fake_model("chat")])
    scores_only = [4]
    cross = FakeWorker(
        [address],
        worker_id="cross",
        models=[embedding_model("cross", capabilities=scores_only)],
    )
    async with chat, cross, worker(address), gateway(address) as client:
        await client.wait_served(1)
        await client.wait_served(1, "chat")
        await client.wait_served(1, "cross")
        for call in (
            client.embedding.Embed(embed_request("a", model="chat")),
            client.embedding.Embed(embed_request("a", model="cross")),
            client.embedding.Score(
                embedding_pb2.ScoreRequest(model="chat", queries="a", documents="b")
            ),
        ):
            error = await error_of(call)
            assert (error.code, error.reason) == ("UNIMPLEMENTED", "CAPABILITY_MISSING")
            assert error.field == "model"
        await client.wait_complete()
        unknown = await error_of(client.embedding.Embed(embed_request("a", model="nobody")))
        assert (unknown.code, unknown.field) == ("NOT_FOUND", "model")
        generating = await error_of(client.chat.Chat(chat_request()))
        assert (generating.code, generating.reason) == ("INVALID_ARGUMENT", "CAPABILITY_MISSING")
        assert "embeds" in generating.message


async def test_a_key_pays_for_what_is_embedded_and_for_its_models_alone(address: str) -> None:
    text = "a key, long enough to be none that is guessed"
    limits = KeyLimits(tokens_per_minute=100)
    key = Key("alice", digest_of(text), models=(MODEL,), limits=limits)
    options = {"metadata": (("authorization", f"Bearer {text}"),)}
    async with worker(address), gateway(address, api_keys=(key,)) as client:
        await eventually(lambda: client.metric("tokenmesh_gateway_workers", state="serving") == 1)
        texts = ["x"] * 150
        await client.embedding.Embed(embed_request(*texts), **options)
        tokens = client.metric("tokenmesh_gateway_key_tokens_total", key="alice", kind="prompt")
        owing = await error_of(client.embedding.Embed(embed_request("x"), **options))
        other = await error_of(client.embedding.Embed(embed_request("x", model="b"), **options))
        bare = await error_of(client.embedding.Embed(embed_request("x")))
    assert tokens == 150
    assert (owing.code, owing.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert owing.retry_after_s
    assert (other.code, bare.code) == ("PERMISSION_DENIED", "UNAUTHENTICATED")
