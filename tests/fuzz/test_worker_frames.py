"""Generate streams of gateways that have lost their minds: other gateways notice nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest

from services.mesh.channels import open_channel
from services.mesh.server import is_serving
from services.worker.chat_formats.base import ChatFormat
from services.worker.engines.scripted import Pace, ScriptedEngine, ScriptedSettings
from tests.fakes.tiny_format import TinyFormat
from tests.fuzz.amount import seeds
from tests.fuzz.bugs import BUGS, end_of
from tests.fuzz.odd_messages import odd_frame
from tests.integration.workers import eventually, worker
from tokenmesh.mesh.v1 import chat_pb2
from tokenmesh.worker.v1 import worker_pb2

FRAMES_PER_STREAM = 60
# What waits for more is left.
READ_LIMIT_S = 0.1


def frame(draw: random.Random, keys: int) -> worker_pb2.GenerateRequest:
    """Any frame, for any of a few keys: many are unknown, in use, or over."""
    request = odd_frame(worker_pb2.GenerateRequest, ("start", "start", "abort", "credit"), draw)
    request.request_key = draw.choice((draw.randrange(keys), draw.randrange(keys), 2**64 - 1))
    if request.HasField("start") and draw.random() < 0.9:
        request.start.model = "scripted"
        if request.start.WhichOneof("prompt") is None:
            request.start.text = "hello"
        if draw.random() < 0.5:
            request.start.ClearField("output_so_far")
            request.start.ClearField("sampling")
    return request  # type: ignore[no-any-return]


async def one_stream(stub: Any, draw: random.Random) -> str:
    """Writes odd frames, reads a little, and goes: half-closing, cancelling, or just leaving."""
    call = stub.Generate()
    try:
        for _ in range(FRAMES_PER_STREAM):
            # Few keys meet a request that runs; many let the stream live.
            await call.write(frame(draw, draw.choice((3, 10_000))))
        if draw.random() < 0.5:
            await call.done_writing()
        async with asyncio.timeout(READ_LIMIT_S):
            for _ in range(draw.randrange(5)):
                if await call.read() is grpc.aio.EOF:
                    break
    except (TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        pass
    call.cancel()
    return await end_of(call)


def engine(chat_format: ChatFormat | None, pace: Pace) -> ScriptedEngine:
    return ScriptedEngine(
        ScriptedSettings(
            pace=pace,
            max_running=8,
            max_waiting=500,
            context_length_tokens=4096,
            chat_format=chat_format,
        )
    )


PARSED = pytest.mark.parametrize(
    "chat_format", [None, TinyFormat(call="e", called="a")], ids=["plain", "parsed"]
)
"""Letters as markers, so that the script is full of calls."""


@PARSED
@pytest.mark.parametrize("seed", seeds(3))
async def test_streams_of_odd_frames_leave_nothing_behind(
    seed: int, chat_format: ChatFormat | None
) -> None:
    draw = random.Random(seed)
    pace = Pace(token_interval_s=0.001, answer_tokens=0)
    async with worker(engine=engine(chat_format, pace)) as served:
        async with served.generate() as sane:
            await sane.start(1, sampling={"max_tokens": 200})
            ends = {await one_stream(served.stub, draw) for _ in range(8)}
            assert not BUGS & ends
            await sane.read_until_ended(1)
            assert len(sane.token_ids(1)) == 200
            await sane.start(2, sampling={"max_tokens": 5})
            await sane.read_until_ended(2)
            assert sane.ends(2)[0].HasField("finished")
        await eventually(
            lambda: (served.engine.load().running, served.engine.load().waiting) == (0, 0)
        )
        async with open_channel(served.served.address) as channel:
            assert await is_serving(channel, 5.0)


@PARSED
@pytest.mark.parametrize("seed", seeds(2))
async def test_outputs_so_far_that_do_not_fit_are_refused_alone(
    seed: int, chat_format: ChatFormat | None
) -> None:
    draw = random.Random(seed)
    async with worker(engine=engine(chat_format, Pace())) as served, served.generate() as stream:
        for key in range(100):
            so_far = [
                worker_pb2.OutputSoFar(
                    choice_index=draw.choice((0, 0, 1, 7, 2**32 - 1)),
                    token_ids=[
                        draw.choice((0, 5, 255, 256, 300, 2**32 - 1))
                        for _ in range(draw.randrange(6))
                    ],
                    next_number=draw.choice((0, 1, 5, 2**31 - 1, 2**32 - 1)),
                    delivered_bytes=draw.choice((0, 1, 2, 9, 2**32 - 1)),
                )
                for _ in range(draw.randrange(1, 4))
            ]
            start = worker_pb2.Start(model="scripted", output_so_far=so_far)
            start.chat.messages.add(role=chat_pb2.ROLE_USER, content=[{"text": "hello"}])
            start.chat.tools.add(name="f")
            start.sampling.max_tokens = draw.choice((1, 3, 50))
            await stream.send(key, start=start)
        for key in range(100):
            await stream.read_until_ended(key)
        errors = [
            stream.error(key).code for key in range(100) if stream.ends(key)[0].HasField("failed")
        ]
        assert errors
        assert set(errors) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
        await eventually(lambda: served.engine.load().running == 0)
