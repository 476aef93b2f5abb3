"""The worker's Generate stream over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google.protobuf import duration_pb2

from services.mesh.channels import open_channel
from services.mesh.errors import (
    ContextLengthError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    MeshError,
    ModelNotFoundError,
    NoWorkerError,
    QueueFullError,
    UnsupportedError,
)
from services.worker.engines.base import EngineRequest
from services.worker.engines.scripted import Pace, ScriptedEngine, ScriptedSettings
from tests.fakes.generate_client import GenerateClient
from tests.integration.workers import SLOW, eventually, worker
from tokenmesh.mesh.v1 import chat_pb2, generation_pb2
from tokenmesh.worker.v1 import worker_pb2


async def test_a_request_streams_and_ends() -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 20})
        await stream.read_until_ended(1)
        assert stream.numbers(1) == list(range(22))
        assert len(stream.token_ids(1)) == 20
        (end,) = stream.ends(1)
        assert end.finished.reason == generation_pb2.FINISH_REASON_LENGTH
        assert end.finished.usage.completion_tokens == 20
        assert end.finished.usage.prompt_tokens == stream.events[1][0].started.prompt_tokens > 0
        assert end.finished.timing.HasField("decode")
        assert stream.steps == sorted(set(stream.steps))


async def test_one_response_holds_a_step_of_all_sequences() -> None:
    async with worker(pace=SLOW) as served, served.generate() as stream:
        for key in range(1, 5):
            await stream.start(key, sampling={"max_tokens": 2000, "choices": 2})
        while True:
            response = await stream.read()
            if len({(each.request_key, each.choice_index) for each in response.events}) == 8:
                break


async def test_two_gateways_use_the_same_key() -> None:
    async with worker(pace=SLOW) as served, served.generate() as one, served.generate() as two:
        await one.start(7, text="one", sampling={"max_tokens": 5})
        await two.start(7, text="two", sampling={"max_tokens": 5})
        await one.read_until_ended(7)
        await two.read_until_ended(7)
        assert one.text(7) != two.text(7)
        assert one.numbers(7) == two.numbers(7) == list(range(7))


@pytest.mark.parametrize(
    ("start", "kind", "field"),
    [
        ({"model": "other"}, ModelNotFoundError, "model"),
        ({"model": ""}, InvalidRequestError, "model"),
        ({"sampling": {"temperature": 3.0}}, InvalidRequestError, "sampling.temperature"),
        ({"sampling": {"max_tokens": 9999}}, ContextLengthError, "sampling.max_tokens"),
        ({"sampling": {"bad_words": ["x"]}}, UnsupportedError, "sampling.bad_words"),
        ({"text": None}, InvalidRequestError, "prompt"),
        ({"text": None, "chat": {}}, InvalidRequestError, "prompt.messages"),
        (
            {"text": None, "chat": {"messages": [{}]}},
            InvalidRequestError,
            "prompt.messages[0].role",
        ),
        ({"time_left": duration_pb2.Duration(seconds=-1)}, DeadlineError, None),
        (
            {"output_so_far": [{"choice_index": 3, "token_ids": [1]}]},
            InvalidRequestError,
            "output_so_far.choice_index",
        ),
    ],
)
async def test_a_bad_request_fails_alone(
    start: dict[str, Any], kind: type[MeshError], field: str | None
) -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(1, **start)
        await stream.read_until_ended(1)
        assert type(stream.error(1)) is kind
        assert stream.numbers(1) == [0]
        assert stream.error(1).field == field
        await stream.start(2, sampling={"max_tokens": 2})
        await stream.read_until_ended(2)
        assert len(stream.token_ids(2)) == 2


async def test_a_failed_request_ends_each_choice_behind_what_it_had() -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(
            1,
            sampling={"choices": 3, "temperature": 9.0},
            output_so_far=[{"choice_index": 1, "next_number": 6, "token_ids": [1]}],
        )
        await stream.read_until_ended(1, choices=3)
        assert [(each.choice_index, each.number) for each in stream.ends(1)] == [
            (0, 0),
            (1, 6),
            (2, 0),
        ]


async def test_more_than_may_wait_is_refused() -> None:
    async with (
        worker(pace=SLOW, max_running=1, max_waiting=1) as served,
        served.generate() as stream,
    ):
        for key in range(1, 4):
            await stream.start(key, sampling={"max_tokens": 2000})
        await stream.read_until_ended(3)
        assert isinstance(stream.error(3), QueueFullError)
        assert stream.error(3).retry_after_s is not None


async def test_abort_frees_the_place_and_silences_the_request() -> None:
    async with worker(pace=SLOW, max_running=1) as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 2000})
        await stream.read_tokens(1, 3)
        await stream.abort(1)
        await stream.abort(99)
        await stream.start(2, sampling={"max_tokens": 3})
        await stream.read_until_ended(2)
        assert not stream.ends(1)
        await eventually(lambda: served.engine.load().running == 0)
        assert (
            served.metric(
                "requests_total", model="scripted", code="CANCELLED", finish_reason="aborted"
            )
            == 1
        )


async def test_credit_bounds_what_is_sent() -> None:
    async with worker() as served, served.generate() as stream:
        sampling = {"max_tokens": 500, "choices": 2, "ignore_eos": True}
        await stream.start(1, sampling=sampling, credit_tokens=5)
        while len(stream.token_ids(1, 0)) + len(stream.token_ids(1, 1)) < 10:
            await stream.read()
        await stream.start(2, sampling={"max_tokens": 50})
        await stream.read_until_ended(2)
        assert len(stream.token_ids(1, 0)) == len(stream.token_ids(1, 1)) == 5
        await stream.credit(1, 495)
        await stream.read_until_ended(1, choices=2)
        assert len(stream.token_ids(1, 1)) == 500


async def test_a_continued_request_continues() -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 30, "seed": 4})
        await stream.read_until_ended(1)
        chunks = [each.chunk for each in stream.events[1][1:-1]]
        delivered = "".join(each.text for each in chunks[:12])
        so_far = worker_pb2.OutputSoFar(
            token_ids=stream.token_ids(1)[:12],
            next_number=13,
            delivered_bytes=len(delivered.encode()),
        )
        await stream.start(2, sampling={"max_tokens": 30, "seed": 4}, output_so_far=[so_far])
        await stream.read_until_ended(2)
        assert delivered + stream.text(2) == stream.text(1)
        assert stream.numbers(2)[0] == 13
        assert stream.ends(2)[0].finished.usage.completion_tokens == 30


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([{}], "FRAME_EMPTY"),
        (
            [{"start": {"model": "scripted", "text": "a"}}, {"start": {"model": "scripted"}}],
            "REQUEST_KEY_IN_USE",
        ),
    ],
)
async def test_a_broken_frame_fails_the_stream(frames: list[dict[str, Any]], reason: str) -> None:
    async with worker(pace=SLOW) as served:
        async with served.generate() as stream:
            await stream.start(5, sampling={"max_tokens": 2000})
            await stream.read_tokens(5, 1)
            for frame in frames:
                await stream.send(1, **frame)
            error = await stream.failure()
            assert (error.code, error.reason) == ("INVALID_ARGUMENT", reason)
        await eventually(lambda: served.engine.load().running == 0)


async def test_a_cancelled_stream_aborts_its_requests() -> None:
    async with worker(pace=SLOW) as served:
        async with served.generate() as stream:
            for key in range(1, 4):
                await stream.start(key, sampling={"max_tokens": 2000})
            await stream.read_tokens(3, 1)
        await eventually(lambda: served.engine.load().running == 0)


async def test_a_half_closed_stream_ends_after_its_requests() -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 50})
        await stream.call.done_writing()
        await stream.read_until_ended(1)
        assert (await stream.call.code()).name == "OK"


async def test_a_gateway_that_does_not_read_is_held_back_while_others_go_on() -> None:
    """With 1,500 tokens for each of 8 requests, unread responses would be 12,000 events."""
    endless = Pace(answer_tokens=0)
    async with (
        worker(pace=endless, max_running=16) as served,
        served.generate() as deaf,
        served.generate() as stream,
    ):
        for key in range(8):
            await deaf.start(
                key, text="x " * 200, sampling={"max_tokens": 1500, "top_logprobs": 20}
            )
        await eventually(lambda: served.engine.load().running == 8)
        for key in range(20):
            await stream.start(key, sampling={"max_tokens": 200})
            await stream.read_until_ended(key)
        assert served.engine.load().running == 8
        await deaf.read_until_ended(*range(8))
        assert all(len(deaf.token_ids(key)) == 1500 for key in range(8))
        assert all(deaf.numbers(key) == list(range(1502)) for key in range(8))


async def test_a_gateway_that_never_reads_loses_its_requests() -> None:
    async with (
        worker(pace=Pace(answer_tokens=0), gateway_read_limit_s=0.2) as served,
        served.generate() as deaf,
    ):
        for key in range(8):
            await deaf.start(key, sampling={"max_tokens": 4000, "top_logprobs": 20})
        await eventually(lambda: served.engine.load().running == 8)
        await eventually(lambda: served.engine.load().running == 0)
        assert (await deaf.failure()).reason == "STREAM_UNREAD"


async def test_a_draining_worker_refuses_what_is_new_and_goes_on_with_what_runs() -> None:
    async with worker(pace=SLOW) as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 40})
        await stream.read_tokens(1, 1)
        served.served.drain.begin(60.0)
        await stream.start(2)
        await stream.read_until_ended(1, 2)
        assert isinstance(stream.error(2), NoWorkerError)
        assert stream.ends(1)[0].HasField("finished")
        served.served.drain.resume()
        await stream.start(3, sampling={"max_tokens": 2})
        await stream.read_until_ended(3)
        assert stream.ends(3)[0].HasField("finished")


async def test_after_the_grace_period_what_runs_fails_where_it_stands() -> None:
    async with worker(pace=SLOW) as served, served.generate() as stream:
        await stream.start(1, sampling={"max_tokens": 2000, "choices": 2})
        await stream.read_tokens(1, 2)
        served.served.drain.begin(0.0)
        await stream.read_until_ended(1, choices=2)
        assert stream.error(1).code == "UNAVAILABLE"
        for choice in (0, 1):
            numbers = stream.numbers(1, choice)
            assert numbers == list(range(len(numbers)))
        assert served.engine.load().running == 0


async def test_a_stopping_worker_fails_what_runs_then_ends_the_stream() -> None:
    async with AsyncExitStack() as left_later:
        async with worker(pace=SLOW) as served:
            channel = await left_later.enter_async_context(open_channel(served.served.address))
            stream = GenerateClient(channel)
            await stream.start(1, sampling={"max_tokens": 2000})
            await stream.read_tokens(1, 1)
            failing = asyncio.create_task(stream.failure())
        assert (await failing).code == "UNAVAILABLE"
    assert stream.error(1).code == "UNAVAILABLE"


async def test_tokens_of_texts_and_conversations() -> None:
    async with worker() as served:
        text = "Grüße, the sun 🙂"
        tokenized = await served.stub.Tokenize(
            worker_pb2.TokenizeRequest(model="alias", text=text, with_texts=True)
        )
        assert len(tokenized.texts) == len(tokenized.token_ids)
        assert tokenized.context_length_tokens == 4096
        back = await served.stub.Detokenize(
            worker_pb2.DetokenizeRequest(model="scripted", token_ids=tokenized.token_ids)
        )
        assert back.text == text
        chat = chat_pb2.ChatPrompt(
            messages=[
                chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
            ]
        )
        counted = await served.stub.CountTokens(
            worker_pb2.CountTokensRequest(model="scripted", chat=chat)
        )
        assert counted.prompt_tokens > len(tokenized.token_ids)


async def test_what_it_describes_and_what_it_cannot_do() -> None:
    async with worker(worker_id="w-1") as served:
        described = await served.stub.DescribeModels(worker_pb2.DescribeModelsRequest())
        assert described.worker_id == "w-1"
        assert described.incarnation == served.served.identity.incarnation
        (model,) = described.models
        assert (model.name, list(model.aliases)) == ("scripted", ["alias"])
        assert model.context_length_tokens == 4096
        for call, request in (
            (
                served.stub.Embed,
                worker_pb2.EmbedRequest(model="scripted", inputs=[worker_pb2.EmbedInput(text="a")]),
            ),
            (
                served.stub.Score,
                worker_pb2.ScoreRequest(model="scripted", queries=["a"], documents=["b"]),
            ),
        ):
            with pytest.raises(Exception, match="generates text") as caught:
                await call(request)
            assert caught.value.code().name == "UNIMPLEMENTED"  # type: ignore[attr-defined]


async def test_metrics_count_requests_tokens_and_steps() -> None:
    async with worker() as served, served.generate() as stream:
        await stream.start(1, model="alias", sampling={"max_tokens": 20, "choices": 2})
        await stream.start(2, model="nobody's")
        await stream.read_until_ended(1, choices=2)
        await stream.read_until_ended(2)
        ended = {"model": "scripted", "code": "OK", "finish_reason": "length"}
        await eventually(lambda: served.metric("requests_total", **ended) == 1)
        failed = {"model": "unknown", "code": "NOT_FOUND", "finish_reason": ""}
        assert served.metric("requests_total", **failed) == 1
        assert served.metric("tokens_total", model="scripted", kind="completion") == 40
        prompt_tokens = stream.events[1][0].started.prompt_tokens
        assert served.metric("tokens_total", model="scripted", kind="prompt") == prompt_tokens
        assert served.metric("decode_seconds_count", model="scripted") == 2
        assert served.metric("step_sequences_count") == 20
        assert served.metric("step_sequences_sum") == 40
        assert served.metric("kv_total_tokens") == served.engine.capacity.kv_total_tokens
        assert served.metric("requests_running") == 0


async def test_a_bug_in_the_engine_fails_the_request_without_internals() -> None:
    class Broken(ScriptedEngine):
        async def submit(self, request: EngineRequest) -> None:
            raise ZeroDivisionError("secret")

    async with (
        worker(engine=Broken(ScriptedSettings())) as served,
        served.generate() as stream,
    ):
        await stream.start(1)
        await stream.read_until_ended(1)
        assert type(stream.error(1)) is InternalError
        assert "secret" not in stream.error(1).message
