"""API keys at a real gateway, over real gRPC: who enters, for what, how often, how fast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.gateway.keys import file_watch
from services.gateway.keys.hashing import digest_of, hash_text
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.settings import GatewaySettings
from services.mesh.errors import StartError
from tests.fakes.fake_worker import MODEL, FakeRequest, FakeWorker, fake_model, start_and_hang
from tests.fakes.gateway_mesh import (
    Client,
    chat_request,
    controller,
    error_of,
    eventually,
    gateway,
)
from tests.integration.test_gateway_converse import opening, turn
from tokenmesh.gateway.v1 import chat_pb2, model_pb2
from tokenmesh.openai.v1 import chat_pb2 as openai_chat_pb2
from tokenmesh.openai.v1 import chat_pb2_grpc as openai_chat_pb2_grpc

ALICE = "alice's key, long enough to be none that is guessed"
BOB = "bob's key, long enough to be none that is guessed"
OTHER_MODEL = "other/model"
BOTH_MODELS = (fake_model(aliases=["default"]), fake_model(OTHER_MODEL))


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def key(name: str, text: str, **fields: Any) -> Key:
    return Key(name, digest_of(text), **fields)


def limited(**limits: int) -> Key:
    return key("alice", ALICE, limits=KeyLimits(**limits))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as address:
        yield address


async def models_seen(client: Client, text: str = ALICE) -> dict[str, int]:
    listed = await client.models.ListModels(model_pb2.ListModelsRequest(), metadata=bearer(text))
    return {served.model.name: served.serving_workers for served in listed.models}


async def ready(client: Client, text: str = ALICE) -> None:
    async with asyncio.timeout(20):
        while not await models_seen(client, text):
            await asyncio.sleep(0.01)


def refusals(client: Client, name: str, reason: str) -> float:
    return client.metric("tokenmesh_gateway_key_refusals_total", key=name, reason=reason)


async def test_every_call_asks_for_a_key_but_health_and_reflection(address: str) -> None:
    async with FakeWorker([address]), gateway(address, api_keys=(limited(),)) as client:
        await ready(client)
        # A body that is wrong in every way is not looked at before the key is.
        unknown: Any = client.channel.unary_unary("/tokenmesh.gateway.v1.Nothing/Known")
        calls = [
            client.chat.Chat(chat_pb2.ChatRequest()),
            client.chat.Converse(),
            client.models.ListModels(model_pb2.ListModelsRequest()),
            client.models.GetModel(model_pb2.GetModelRequest()),
            client.models.Tokenize(model_pb2.TokenizeRequest()),
            unknown(b""),
        ]
        stub: Any = channelz_pb2_grpc.ChannelzStub(cast("Any", client.channel))
        calls.append(stub.GetServers(channelz_pb2.GetServersRequest()))
        for call in calls:
            error = await error_of(call)
            assert (error.code, error.reason) == ("UNAUTHENTICATED", "INVALID_API_KEY")
            assert dict(await call.trailing_metadata())["www-authenticate"] == "Bearer"
        wrong = await error_of(client.chat.Chat(chat_request(), metadata=bearer(BOB)))
        assert wrong.message == f"incorrect API key provided: ********{BOB[-4:]}"

        health: Any = health_pb2_grpc.HealthStub(client.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", client.channel))
        listing = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        assert (await listing.read()).list_services_response.service

        assert await client.answer(metadata=bearer(ALICE)) == "Hello"
        assert await client.answer(metadata=(("x-api-key", ALICE),)) == "Hello"
        assert await client.answer(metadata=(("api-key", ALICE),)) == "Hello"
        assert refusals(client, "", "missing") == len(calls)
        assert client.metric("tokenmesh_gateway_key_requests_total", key="alice") == 3


async def test_a_key_sees_and_uses_its_models_alone(address: str) -> None:
    keys = (key("alice", ALICE, models=("other/*",)), key("bob", BOB, models=(MODEL,)))
    async with (
        FakeWorker([address], models=BOTH_MODELS) as worker,
        gateway(address, api_keys=keys) as client,
    ):
        await ready(client)
        assert await models_seen(client) == {OTHER_MODEL: 1}
        assert await models_seen(client, BOB) == {MODEL: 1}
        forbidden = [
            await error_of(client.chat.Chat(chat_request(model=name), metadata=bearer(ALICE)))
            for name in (MODEL, "default", "no-such-model")
        ]
        # One that exists is told from one that does not by nothing.
        assert {(each.code, each.reason, each.field) for each in forbidden} == {
            ("PERMISSION_DENIED", "PERMISSION_DENIED", "model")
        }
        assert {
            each.message.replace(name, "M")
            for each, name in zip(forbidden, (MODEL, "default", "no-such-model"), strict=True)
        } == {"this API key may not use the model 'M'"}
        got = client.models.GetModel(model_pb2.GetModelRequest(model=MODEL), metadata=bearer(ALICE))
        assert (await error_of(got)).code == "PERMISSION_DENIED"
        # An alias of what may be used may be used.
        assert await client.answer(chat_request(model="default"), metadata=bearer(BOB)) == "Hello"
        # A model that is missing in the request is the request's fault, not the key's.
        call = client.chat.Chat(chat_pb2.ChatRequest(), metadata=bearer(ALICE))
        assert (await error_of(call)).field == "model"
        assert len(worker.starts) == 1
        assert refusals(client, "alice", "model") == 4


async def test_requests_over_the_rate_are_refused_with_a_time(address: str) -> None:
    keys = (limited(requests_per_minute=2), key("bob", BOB))
    async with FakeWorker([address]), gateway(address, api_keys=keys) as client:
        await ready(client)
        call = client.chat.Chat(chat_request(), metadata=bearer(ALICE))
        headers = dict(await call.initial_metadata())
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == "1"
        assert [each async for each in call]
        assert await client.answer(metadata=bearer(ALICE)) == "Hello"
        refused = await error_of(client.chat.Chat(chat_request(), metadata=bearer(ALICE)))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert refused.retry_after_s is not None
        assert 0 < refused.retry_after_s <= 30
        # Looking at what there is costs nothing, and others are others.
        assert await models_seen(client)
        assert await client.answer(metadata=bearer(BOB)) == "Hello"


async def test_the_gateway_says_so_over_openai_s_calls(address: str) -> None:
    keys = (limited(requests_per_minute=1),)
    async with FakeWorker([address]), gateway(address, api_keys=keys) as client:
        await ready(client)
        stub: Any = openai_chat_pb2_grpc.ChatCompletionServiceStub(client.channel)
        body = openai_chat_pb2.CreateChatCompletionRequest(model=MODEL)
        body.messages.add().struct_value.update({"role": "user", "content": "Hi"})
        call = stub.CreateChatCompletion(body, metadata=bearer(ALICE))
        assert len([each async for each in call]) == 1
        headers = dict(await call.initial_metadata())
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-tokenmesh-seed" in headers
        refused = stub.CreateChatCompletion(body, metadata=bearer(ALICE))
        assert (await error_of(refused)).code == "RESOURCE_EXHAUSTED"
        trailers = dict(await refused.trailing_metadata())
        assert 1 <= int(trailers["retry-after"]) <= 60
        assert trailers["x-ratelimit-limit-requests"] == "1"


async def test_so_many_run_at_once(address: str) -> None:
    async with (
        FakeWorker([address], start_and_hang) as worker,
        gateway(address, api_keys=(limited(max_concurrent=1),)) as client,
    ):
        await ready(client)
        first = client.chat.Chat(chat_request(), metadata=bearer(ALICE))
        await first.read()
        refused = await error_of(client.chat.Chat(chat_request(), metadata=bearer(ALICE)))
        assert refused.reason == "RATE_LIMITED"
        first.cancel()
        await eventually(lambda: bool(worker.aborted))
        second = client.chat.Chat(chat_request(), metadata=bearer(ALICE))
        assert (await second.read()).HasField("started")
        second.cancel()


async def test_a_stream_over_its_tokens_is_held_back_until_they_come(address: str) -> None:
    """The worker sends whatever it has credit for, as engines do."""
    most_ahead = 0

    async def talk(request: FakeRequest) -> None:
        nonlocal most_ahead
        await request.started(prompt_tokens=1150 if len(worker.starts) == 1 else 3)
        for sent in range(40):
            most_ahead = max(most_ahead, request.credit_tokens - sent)
            while request.credit_tokens <= sent:
                request.credited.clear()
                await request.credited.wait()
            await request.chunk("x")
        await request.finish(completion_tokens=40)

    # 20 a second. What the first leaves of a minute's worth is 10, and the second takes 43.
    async with (
        FakeWorker([address], talk) as worker,
        gateway(address, api_keys=(limited(tokens_per_minute=1200),)) as client,
    ):
        await ready(client)

        def paused_s() -> float:
            return client.metric("tokenmesh_gateway_key_paused_seconds_total", key="alice")

        def used(kind: str) -> float:
            return client.metric("tokenmesh_gateway_key_tokens_total", key="alice", kind=kind)

        assert await client.answer(metadata=bearer(ALICE)) == "x" * 40
        assert paused_s() == 0
        assert await client.answer(metadata=bearer(ALICE)) == "x" * 40
        assert paused_s() > 0
        assert most_ahead <= 20
        assert (used("prompt"), used("completion")) == (1153, 80)


async def test_a_prompt_of_more_than_two_minutes_ends_its_request(address: str) -> None:
    async def talk(request: FakeRequest) -> None:
        await request.started(prompt_tokens=1000)
        for _ in range(request.credit_tokens):
            await request.chunk("x")
        await asyncio.Event().wait()

    async with (
        FakeWorker([address], talk) as worker,
        gateway(address, api_keys=(limited(tokens_per_minute=240),)) as client,
    ):
        await ready(client)
        ended = await error_of(client.chat.Chat(chat_request(), metadata=bearer(ALICE)))
        assert ended.reason == "RATE_LIMITED"
        assert ended.retry_after_s is not None
        assert ended.retry_after_s > 60
        await eventually(lambda: bool(worker.aborted))
        assert refusals(client, "alice", "paused") == 1
        refused = await error_of(client.chat.Chat(chat_request(), metadata=bearer(ALICE)))
        assert refused.message.startswith("rate limit reached: 240 tokens per minute")


def entry(name: str, text: str, *lines: str) -> str:
    return "\n".join((f"- name: {name}", f"  hash: {hash_text(digest_of(text))}", *lines, ""))


async def test_the_file_counts_without_a_restart(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "LOOK_INTERVAL_S", 0.02)
    # As Kubernetes mounts a secret: the directory behind a symbolic link is swapped.
    for version, text in (("1", entry("alice", ALICE)), ("2", entry("bob", BOB))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys.yaml").write_text("keys:\n" + text)
    (tmp_path / "..data").symlink_to("1")
    file = tmp_path / "keys.yaml"
    file.symlink_to("..data/keys.yaml")

    async with (
        FakeWorker([address], start_and_hang) as worker,
        gateway(address, api_keys_file=file) as client,
    ):
        await ready(client)
        running = client.chat.Chat(chat_request(), metadata=bearer(ALICE))
        await running.read()

        async def enters(text: str) -> bool:
            try:
                await models_seen(client, text)
            except grpc.aio.AioRpcError:
                return False
            return True

        async def until(text: str, *, enters_then: bool) -> None:
            async with asyncio.timeout(20):
                while await enters(text) is not enters_then:
                    await asyncio.sleep(0.01)

        (tmp_path / "swap").symlink_to("2")
        (tmp_path / "swap").replace(tmp_path / "..data")
        await until(BOB, enters_then=True)
        assert not await enters(ALICE)
        # What runs goes on.
        assert not worker.aborted
        assert (await running.read()).HasField("chunk")
        running.cancel()

        # One that is broken changes nothing, and is told.
        (tmp_path / "2" / "keys.yaml").write_text("keys:\n- name: [\n")
        await eventually(lambda: client.metric("tokenmesh_gateway_keys_file_broken") == 1)
        assert await enters(BOB)
        file.unlink()
        file.write_text("keys:\n" + entry("bob", BOB, "  expires: 2099-01-01"))
        await eventually(lambda: client.metric("tokenmesh_gateway_keys_file_broken") == 0)
        assert await enters(BOB)
        assert (
            client.metric("tokenmesh_gateway_key_expiry_timestamp_seconds", key="bob")
            == datetime(2099, 1, 1, tzinfo=UTC).timestamp()
        )
        file.write_text("keys:\n" + entry("bob", BOB, "  disabled: true"))
        await until(BOB, enters_then=False)


async def test_a_broken_file_stops_the_start(address: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    for text, told in (
        ("keys:\n- name: a\n", r"keys.yaml: line 2: keys\[0\].hash is missing"),
        ("keys:\n" + entry("bob", ALICE), r"keys\[0\].hash is that of a key of --api-keys"),
    ):
        file.write_text(text)
        with pytest.raises(StartError, match=told):
            async with gateway(address, api_keys=(key("key#1", ALICE),), api_keys_file=file):
                pass


async def test_a_conversation_is_checked_at_each_turn(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "LOOK_INTERVAL_S", 0.02)
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n" + entry("alice", ALICE, "  requests_per_minute: 2"))
    async with FakeWorker([address]), gateway(address, api_keys_file=file) as client:
        await ready(client)
        call = client.chat.Converse(metadata=bearer(ALICE))

        async def ask(number: int) -> chat_pb2.ConverseResponse:
            await call.write(turn(number, "Hi"))
            while True:
                response: chat_pb2.ConverseResponse = await call.read()
                if response.WhichOneof("event") in {"completed", "failed"}:
                    return response

        await call.write(opening())
        assert (await ask(1)).HasField("completed")
        assert (await ask(2)).HasField("completed")
        refused = await ask(3)
        assert refused.failed.reason == "RATE_LIMITED"
        assert refused.failed.retry_after.ToMilliseconds() > 0
        file.write_text("keys:\n" + entry("alice", ALICE, "  models: [another]"))
        async with asyncio.timeout(20):
            while (await ask(4)).failed.reason != "PERMISSION_DENIED":
                await asyncio.sleep(0.01)
        file.write_text("keys: []\n")
        # The first turn after the file was read ends the stream.
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(20):
                await _forever(ask)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _forever(ask: Callable[[int], Awaitable[object]]) -> NoReturn:
    while True:
        await ask(5)
        await asyncio.sleep(0.01)


async def test_keys_share_a_full_mesh_by_weight(address: str) -> None:
    """One request runs at a time; the order in which the others had their turn tells."""
    gate = asyncio.Event()
    order: list[str] = []

    async def one_by_one(request: FakeRequest) -> None:
        await gate.wait()
        order.append(request.start.request_id)
        await request.started()
        await request.chunk("x")
        await request.finish()

    keys = (key("alice", ALICE, weight=1.0), key("bob", BOB, weight=3.0))
    async with (
        FakeWorker([address], one_by_one) as worker,
        gateway(address, api_keys=keys, max_waiting=200) as client,
    ):
        await ready(client)

        async def ask(name: str, text: str, number: int) -> None:
            metadata = (*bearer(text), ("x-request-id", f"{name}-{number}"))
            await client.answer(chat_request(max_tokens=1), metadata=metadata)

        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                tasks.create_task(ask("alice", ALICE, number))
                tasks.create_task(ask("bob", BOB, number))
            await eventually(
                lambda: client.metric("tokenmesh_gateway_requests_waiting", model=MODEL) >= 60
            )
            began = len(worker.starts)
            gate.set()
        served = [start.request_id.partition("-")[0] for start in worker.starts[began:]]
        while_both_wait = served[:40]
        assert while_both_wait.count("bob") == pytest.approx(30, abs=2)


def test_settings_show_no_key() -> None:
    settings = GatewaySettings(api_keys=(limited(),))
    assert digest_of(ALICE).hex() not in repr(settings)
    assert repr(digest_of(ALICE)) not in repr(settings)
