"""Whatever frames a gateway sends, the worker goes on serving others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.worker.engines.scripted import Pace
from tests.integration.workers import eventually, worker
from tokenmesh.worker.v1 import worker_pb2

INTEGERS = (0, 1, 2, 3, 20, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, -1, -(2**31), -(2**63))
DOUBLES = (0.0, 1.0, -1.0, 1e-9, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "scripted", "{{ 1 / 0 }}", "\x00", "🙂" * 50, "<|end|>", " the" * 100)


def fill(message: Message, draw: random.Random, depth: int = 0) -> None:
    """Sets some fields to odd values."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() < 0.6 or depth > 6:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                key, value = draw.choice((0, 5, 2**32 - 1)), draw.choice(DOUBLES)
                getattr(message, field.name)[key] = value
        elif field.is_repeated:
            for _ in range(draw.randrange(3)):
                if field.message_type is not None:
                    fill(getattr(message, field.name).add(), draw, depth + 1)
                else:
                    append(getattr(message, field.name), field, draw)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, draw, depth + 1)
        else:
            assign(message, field, draw)


def odd_value(field: Any, draw: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        return b"\xff\x00" if is_bytes else draw.choice(TEXTS)
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return draw.choice(DOUBLES)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return draw.choice((0, 1, 2, 99))
    return draw.choice(INTEGERS)


def assign(message: Message, field: Any, draw: random.Random) -> None:
    while True:
        try:
            setattr(message, field.name, odd_value(field, draw))
        except ValueError:
            continue
        return


def append(values: Any, field: Any, draw: random.Random) -> None:
    while True:
        try:
            values.append(odd_value(field, draw))
        except ValueError:
            continue
        return


def odd_start(draw: random.Random) -> worker_pb2.Start:
    start = worker_pb2.Start()
    fill(start, draw)
    if draw.random() < 0.8:
        start.model = "scripted"
    if draw.random() < 0.4:
        start.text = draw.choice(TEXTS)
    if draw.random() < 0.5:
        start.ClearField("sampling")
        start.sampling.max_tokens = draw.choice((1, 3, 200))
    return start


@pytest.mark.parametrize("seed", range(6))
async def test_odd_requests_end_alone(seed: int) -> None:
    draw = random.Random(seed)
    starts: Sequence[worker_pb2.Start] = [odd_start(draw) for _ in range(60)]
    async with worker(pace=Pace(answer_tokens=9), max_waiting=200) as served:
        async with served.generate() as stream, served.generate() as other:
            for key, start in enumerate(starts):
                await stream.send(key, start=start)
                if draw.random() < 0.2:
                    await stream.credit(key, draw.choice((0, 1, 2**32 - 1)))
                await stream.abort(draw.randrange(200, 300))
            await other.start(1, sampling={"max_tokens": 5})
            await other.read_until_ended(1)
            assert other.ends(1)[0].HasField("finished")
            for key in range(len(starts)):
                await stream.abort(key)
            await stream.start(1000, sampling={"max_tokens": 5})
            await stream.read_until_ended(1000)
            assert stream.ends(1000)[0].HasField("finished")
            for key in range(len(starts)):
                for choice in {each.choice_index for each in stream.events[key]}:
                    numbers = stream.numbers(key, choice)
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            told = [stream.error(key) for key in range(len(starts)) if failed(stream.ends(key))]
            assert told
            assert all(each.code != "INTERNAL" for each in told), [
                each.message for each in told if each.code == "INTERNAL"
            ]
        await eventually(lambda: served.engine.load().running == 0)


def failed(ends: list[worker_pb2.SequenceEvent]) -> bool:
    return bool(ends) and ends[0].HasField("failed")


@pytest.mark.parametrize("seed", range(6))
async def test_odd_calls_are_answered_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    codes = []
    async with worker() as served:
        for _ in range(40):
            call, request = draw.choice(
                (
                    (served.stub.Tokenize, worker_pb2.TokenizeRequest()),
                    (served.stub.Detokenize, worker_pb2.DetokenizeRequest()),
                    (served.stub.CountTokens, worker_pb2.CountTokensRequest()),
                    (served.stub.Embed, worker_pb2.EmbedRequest()),
                    (served.stub.Score, worker_pb2.ScoreRequest()),
                )
            )
            fill(request, draw)
            if draw.random() < 0.7:
                request.model = "scripted"
            try:
                await call(request)
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
    assert codes
    assert not {"UNKNOWN", "INTERNAL"} & set(codes)
