"""A request through a real gateway, over real gRPC, to workers that a real controller knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.mesh.errors import InvalidRequestError
from tests.fakes.fake_worker import (
    MODEL,
    FakeRequest,
    FakeWorker,
    Script,
    failing,
    fake_model,
    hang,
    say_hello,
    start_and_hang,
)
from tests.fakes.gateway_mesh import chat_request, controller, error_of, eventually, gateway
from tokenmesh.gateway.v1 import completion_pb2, embedding_pb2, model_pb2
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.mesh.v1 import model_pb2 as mesh_model_pb2

UNKNOWN = {"model": "unknown", "operation": "chat", "code": "NOT_FOUND", "finish_reason": ""}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as address:
        yield address


async def test_chat_gives_started_then_chunks_then_finished_then_completed(address: str) -> None:
    async with FakeWorker([address]) as worker, gateway(address) as client:
        await client.wait_served(1)
        call = client.chat.Chat(chat_request(seed=7), metadata=(("x-request-id", "req-me"),))
        responses = [response async for response in call]
        assert dict(await call.trailing_metadata())["x-request-id"] == "req-me"
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["finished", "completed"]
    assert set(kinds[1:-2]) == {"chunk"}
    started, completed = responses[0].started, responses[-1].completed
    assert (started.request_id, started.model, started.seed) == ("req-me", MODEL, 7)
    assert started.prompt_tokens == 3
    assert "".join(response.chunk.text for response in responses) == "Hello"
    assert [t for response in responses for t in response.chunk.token_ids] == [1, 2]
    assert responses[-2].finished.reason == generation_pb2.FINISH_REASON_STOP
    assert completed.usage.completion_tokens == 2
    assert worker.starts[0].request_id == "req-me"


async def test_usage_and_order_of_several_choices(address: str) -> None:
    async def two(request: FakeRequest) -> None:
        for choice in (1, 0):
            await request.started(choice)
        for choice in (1, 0):
            await request.chunk(f"c{choice}", choice=choice)
            await request.finish(choice, completion_tokens=choice + 2)

    async with FakeWorker([address], two), gateway(address) as client:
        await client.wait_served(1)
        responses = [r async for r in client.chat.Chat(chat_request(choices=2))]
    assert [r.WhichOneof("event") for r in responses].count("started") == 1
    assert [(r.choice_index, r.chunk.text) for r in responses if r.HasField("chunk")] == [
        (1, "c1"),
        (0, "c0"),
    ]
    completed = responses[-1].completed
    assert (completed.usage.prompt_tokens, completed.usage.completion_tokens) == (3, 5)
    assert completed.timing.decode.ToMilliseconds() == 20


async def test_a_seed_is_drawn_where_the_client_gave_none(address: str) -> None:
    async with FakeWorker([address]) as worker, gateway(address) as client:
        await client.wait_served(1)
        responses = [response async for response in client.chat.Chat(chat_request())]
        await client.answer()
    first, second = (start.sampling.seed for start in worker.starts)
    assert responses[0].started.seed == first
    assert first != second
    assert max(first, second) < 2**53


async def test_completion_takes_text_or_token_ids(address: str) -> None:
    async with FakeWorker([address]) as worker, gateway(address) as client:
        await client.wait_served(1)
        for prompt in (
            completion_pb2.CompleteRequest(model=MODEL, text="Once", echo=True),
            completion_pb2.CompleteRequest(
                model=MODEL, token_ids=completion_pb2.PromptTokens(values=[5, 6])
            ),
        ):
            responses = [response async for response in client.completion.Complete(prompt)]
            assert "".join(response.chunk.text for response in responses) == "Hello"
            assert responses[-1].HasField("completed")
    assert worker.starts[0].text == "Once"
    assert worker.starts[0].echo
    assert list(worker.starts[1].token_ids.values) == [5, 6]


async def test_names_stand_for_models_adapters_and_aliases(address: str) -> None:
    model = fake_model(aliases=["latest"], adapters=[mesh_model_pb2.Adapter(name="sql")])
    async with FakeWorker([address], models=[model]) as worker, gateway(address) as client:
        await client.wait_served(1)
        for asked, answering in ((MODEL, MODEL), ("latest", MODEL), ("sql", "sql")):
            responses = [r async for r in client.chat.Chat(chat_request(model=asked))]
            assert responses[0].started.model == answering
            assert worker.starts[-1].model == answering
        found = await client.models.GetModel(model_pb2.GetModelRequest(model="latest"))
        assert found.model.model.name == MODEL
        assert found.model.serving_workers == 1


async def test_an_unknown_model_is_not_found(address: str) -> None:
    async with FakeWorker([address]), gateway(address) as client:
        await client.wait_served(1)
        await client.wait_complete()
        refused = client.metric("tokenmesh_gateway_requests_total", **UNKNOWN)
        for call in (
            client.chat.Chat(chat_request(model="none")),
            client.models.GetModel(model_pb2.GetModelRequest(model="none")),
            client.models.Tokenize(model_pb2.TokenizeRequest(model="none", text="a")),
            client.embedding.Embed(embed_request("none")),
        ):
            error = await error_of(call)
            assert (error.code, error.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        counted = client.metric("tokenmesh_gateway_requests_total", **UNKNOWN)
        assert counted == refused + 1


def embed_request(model: str) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(model=model, inputs=[embedding_pb2.EmbedInput(text="a")])


async def test_a_model_that_cannot_embed_says_so(address: str) -> None:
    async with FakeWorker([address]), gateway(address) as client:
        await client.wait_served(1)
        for call in (
            client.embedding.Embed(embed_request(MODEL)),
            client.embedding.Score(
                embedding_pb2.ScoreRequest(model=MODEL, queries=["a"], documents=["b"])
            ),
        ):
            error = await error_of(call)
            assert (error.code, error.reason) == ("UNIMPLEMENTED", "CAPABILITY_MISSING")


async def test_tokens_come_from_a_worker(address: str) -> None:
    async with FakeWorker([address]), gateway(address) as client:
        await client.wait_served(1)
        tokens = await client.models.Tokenize(
            model_pb2.TokenizeRequest(model=MODEL, text="ab", with_texts=True)
        )
        text = await client.models.Detokenize(
            model_pb2.DetokenizeRequest(model=MODEL, token_ids=tokens.token_ids)
        )
        count = await client.models.CountTokens(
            model_pb2.CountTokensRequest(model=MODEL, text="abc")
        )
        missing = await error_of(client.models.Tokenize(model_pb2.TokenizeRequest(model=MODEL)))
    assert (list(tokens.token_ids), list(tokens.texts)) == ([97, 98], ["a", "b"])
    assert text.text == "ab"
    assert (count.prompt_tokens, count.context_length_tokens) == (3, 64)
    assert (missing.code, missing.field) == ("INVALID_ARGUMENT", "prompt")


async def test_what_is_invalid_never_reaches_a_worker(address: str) -> None:
    async with FakeWorker([address]) as worker, gateway(address) as client:
        await client.wait_served(1)
        error = await error_of(client.chat.Chat(chat_request(temperature=3.0)))
        assert (error.code, error.field) == ("INVALID_ARGUMENT", "sampling.temperature")
        request = chat_request()
        request.prompt.tools.add(name="f")
        error = await error_of(client.chat.Chat(request))
        assert (error.reason, error.field) == ("CAPABILITY_MISSING", "prompt.tools")
        assert not worker.starts


async def test_a_worker_error_reaches_the_client_whole(address: str) -> None:
    refusal = InvalidRequestError("too long", reason="CONTEXT_LENGTH_EXCEEDED", field="prompt")
    async with FakeWorker([address], failing(refusal)) as worker, gateway(address) as client:
        await client.wait_served(1)
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED")
        assert (error.message, error.field) == ("too long", "prompt")
        assert len(worker.starts) == 1


async def test_a_client_that_leaves_aborts_the_work_at_once(address: str) -> None:
    async with FakeWorker([address], start_and_hang) as worker, gateway(address) as client:
        await client.wait_served(1)
        call = client.chat.Chat(chat_request(), metadata=(("x-request-id", "gone"),))
        async for response in call:
            if response.HasField("chunk"):
                break
        assert len(worker.running) == 1
        call.cancel()
        await eventually(lambda: not worker.running)
        assert worker.aborted == ["gone"]
        await eventually(
            lambda: client.metric("tokenmesh_gateway_requests_running", model=MODEL) == 0
        )
        counted = client.metric(
            "tokenmesh_gateway_requests_total",
            model=MODEL,
            operation="chat",
            code="CANCELLED",
            finish_reason="",
        )
        assert counted == 1


@pytest.mark.parametrize("script", [hang, start_and_hang])
async def test_a_deadline_ends_the_request_and_its_work(script: Script, address: str) -> None:
    async with FakeWorker([address], script) as worker, gateway(address) as client:
        await client.wait_served(1)
        header = (("x-request-timeout", "0.2"),)
        error = await error_of(client.chat.Chat(chat_request(), metadata=header))
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        await eventually(lambda: not worker.running)
        assert 0 < worker.starts[0].time_left.ToMilliseconds() <= 200
        error = await error_of(client.chat.Chat(chat_request(), timeout=0.2))
        assert error.code == "DEADLINE_EXCEEDED"
        await eventually(lambda: not worker.running)


async def test_the_gateway_limits_time_and_number_of_requests(address: str) -> None:
    async with (
        FakeWorker([address], hang) as worker,
        gateway(address, request_timeout_s=0.5, max_requests=1) as client,
    ):
        await client.wait_served(1)
        patient = asyncio.create_task(error_of(client.chat.Chat(chat_request(), timeout=60)))
        await eventually(lambda: len(worker.running) == 1)
        refused = await error_of(client.chat.Chat(chat_request()))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert refused.retry_after_s is not None
        assert (await patient).code == "DEADLINE_EXCEEDED"


async def test_a_client_that_does_not_read_loses_its_place_at_the_deadline(address: str) -> None:
    async def pour(request: FakeRequest) -> None:
        await request.started()
        while True:
            await request.chunk("x" * 10_000)

    async with (
        FakeWorker([address], pour) as worker,
        gateway(address, request_timeout_s=1.0, max_requests=1) as client,
    ):
        await client.wait_served(1)
        stuck = client.chat.Chat(chat_request(), timeout=60)
        assert (await stuck.read()).HasField("started")
        await eventually(lambda: bool(worker.aborted))
        worker.script = say_hello
        assert await client.answer() == "Hello"
        stuck.cancel()


async def test_a_malformed_timeout_is_named(address: str) -> None:
    async with gateway(address) as client:
        for value in ("soon", "-1", "0", "nan"):
            call = client.chat.Chat(chat_request(), metadata=(("x-request-timeout", value),))
            error = await error_of(call)
            assert (error.code, error.field) == ("INVALID_ARGUMENT", "x-request-timeout")


async def test_a_client_that_reads_slowly_holds_the_worker_back(address: str) -> None:
    sent = 0

    async def pour(request: FakeRequest) -> None:
        nonlocal sent
        await request.started()
        for token in range(400):
            while sent >= request.credit_tokens:
                request.credited.clear()
                await request.credited.wait()
            sent += 1
            await request.chunk("x", [token])
        await request.finish(completion_tokens=400)

    async with FakeWorker([address], pour), gateway(address, credit_window_tokens=20) as client:
        await client.wait_served(1)
        responses = [response async for response in client.chat.Chat(chat_request())]
    assert "".join(response.chunk.text for response in responses) == "x" * 400
    assert [t for response in responses for t in response.chunk.token_ids] == list(range(400))
