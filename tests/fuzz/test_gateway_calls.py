"""Every call that clients may make of a gateway, as nobody means it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from services.mesh.server import is_serving
from tests.fakes.gateway_mesh import Client, chat_request, controller, eventually, gateway
from tests.fuzz.amount import seeds
from tests.fuzz.bugs import BUGS, end_of
from tests.fuzz.odd_messages import odd, odd_frame
from tests.integration.test_gateway_real_workers import worker
from tokenmesh.gateway.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2

MODEL = "scripted"
# What runs on is left by its client after so long.
LIMIT_S = 0.3


@asynccontextmanager
async def mesh() -> AsyncIterator[tuple[Client, Any]]:
    """A gateway's client, and the engine behind it."""
    async with controller() as address, worker(address) as served, gateway(address) as client:
        await client.wait_served(1, MODEL)
        yield client, served.engine


def odd_request(client: Client, draw: random.Random) -> tuple[Any, Any]:
    """A call, and what to call it with."""
    chosen: tuple[Any, Any] = draw.choice(
        (
            (client.chat.Chat, chat_pb2.ChatRequest()),
            (client.chat.Chat, chat_request(model=MODEL)),
            (client.completion.Complete, completion_pb2.CompleteRequest()),
            (client.embedding.Embed, embedding_pb2.EmbedRequest()),
            (client.models.ListModels, model_pb2.ListModelsRequest()),
            (client.models.GetModel, model_pb2.GetModelRequest()),
            (client.models.Tokenize, model_pb2.TokenizeRequest()),
            (client.models.CountTokens, model_pb2.CountTokensRequest()),
        )
    )
    call, request = chosen
    odd(request, draw, share=draw.choice((0.1, 0.3, 0.7)))
    if "model" in request.DESCRIPTOR.fields_by_name and draw.random() < 0.8:
        request.model = MODEL
    return call, request


async def outcome(call: Any) -> str:
    """How a call ends. Its client leaves when it takes long."""
    try:
        async with asyncio.timeout(LIMIT_S):
            if isinstance(call, grpc.aio.UnaryUnaryCall):
                await call
            else:
                async for _ in call:
                    pass
    except TimeoutError:
        call.cancel()
        return "left"
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def check_well(client: Client, engine: Any) -> None:
    """Nothing is held, and others are served."""
    await eventually(lambda: (engine.load().running, engine.load().waiting) == (0, 0))
    await eventually(
        lambda: client.metric("tokenmesh_gateway_requests_running", model=MODEL) == 0.0
    )
    assert await is_serving(client.channel, 5.0)
    assert await client.answer(chat_request(model=MODEL, max_tokens=3))


@pytest.mark.parametrize("seed", seeds(3))
async def test_odd_calls_are_answered_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    async with mesh() as (client, engine):
        codes = set()
        for _ in range(120):
            call, request = odd_request(client, draw)
            codes.add(await outcome(call(request)))
        assert "INVALID_ARGUMENT" in codes
        assert not BUGS & codes, codes
        await check_well(client, engine)


@pytest.mark.parametrize("seed", seeds(3))
async def test_odd_conversations_end_alone(seed: int) -> None:
    draw = random.Random(seed)
    async with mesh() as (client, engine):
        codes = set()
        for _ in range(25):
            call = client.chat.Converse()
            try:
                async with asyncio.timeout(LIMIT_S):
                    for _ in range(draw.randrange(1, 8)):
                        frame = odd_frame(
                            chat_pb2.ConverseRequest, ("open", "turn", "turn", "interrupt"), draw
                        )
                        if frame.HasField("open") and draw.random() < 0.9:
                            frame.open.model = MODEL
                        await call.write(frame)
                    await call.done_writing()
                    while await call.read() is not grpc.aio.EOF:
                        pass
            except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                call.cancel()
            codes.add(await end_of(call))
        assert codes
        assert not BUGS & codes, codes
        await check_well(client, engine)
