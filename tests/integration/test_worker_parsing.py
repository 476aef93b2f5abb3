"""Reasoning and tool calls on the Generate stream, of an engine that writes what it is asked to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.worker.engines.scripted import Pace, ScriptedEngine, ScriptedSettings
from services.worker.parsing.call_ids import call_id
from tests.fakes.generate_client import GenerateClient
from tests.fakes.tiny_format import TinyFormat
from tests.integration.workers import Worker, eventually, worker
from tokenmesh.mesh.v1 import chat_pb2, generation_pb2
from tokenmesh.worker.v1 import worker_pb2

CALL = '<tool_call>f {"a": 1}</tool_call>'
TOOLS = [{"name": "f"}, {"name": "g"}]


@asynccontextmanager
async def parsing_worker(pace: Pace | None = None) -> AsyncIterator[Worker]:
    settings = ScriptedSettings(repeats=True, chat_format=TinyFormat(), pace=pace or Pace())
    async with worker(engine=ScriptedEngine(settings)) as served:
        yield served


def chat(text: str, **fields: Any) -> dict[str, Any]:
    message = {"role": chat_pb2.ROLE_USER, "content": [{"text": text}]}
    return {"messages": [message], **fields}


async def ask(
    stream: GenerateClient, text: str, *, key: int = 1, choices: int = 1, **fields: Any
) -> list[worker_pb2.SequenceEvent]:
    sampling = {"seed": 7, "choices": choices, **fields.pop("sampling", {})}
    await stream.send(
        key,
        start={
            "model": "scripted",
            "request_id": "r",
            "sampling": sampling,
            "chat": chat(text, **fields),
        },
    )
    await stream.read_until_ended(key, choices=choices)
    return stream.events[key]


def calls_of(events: list[worker_pb2.SequenceEvent], choice: int = 0) -> list[list[str]]:
    calls: list[list[str]] = []
    for event in events:
        for piece in event.chunk.tool_calls if event.choice_index == choice else ():
            if piece.HasField("id"):
                assert piece.index == len(calls)
                calls.append([piece.id, piece.name, ""])
            calls[piece.index][2] += piece.arguments
    return calls


async def test_reasoning_text_and_calls_are_told_apart() -> None:
    text = f"<think>a deep thought</think>Grüße 🙂 {CALL}"
    async with parsing_worker() as served, served.generate() as stream:
        events = await ask(stream, text, tools=TOOLS)
        assert "".join(each.chunk.reasoning for each in events) == "a deep thought"
        assert stream.text(1) == "Grüße 🙂 "
        assert calls_of(events) == [[call_id("r", 7, 0, 0), "f", '{"a": 1}']]
        assert stream.numbers(1) == list(range(len(events)))
        # The last byte is let go where something was held back to the end.
        assert sum(each.chunk.output_bytes for each in events) == len(text.encode()) - 1
        finished = events[-1].finished
        assert finished.reason == generation_pb2.FINISH_REASON_TOOL_CALLS
        spent = sum(each.chunk.reasoning_tokens for each in events)
        # Those between the markers, and the one that closes.
        assert finished.usage.reasoning_tokens == spent == 2 + len("a") + 1
        assert finished.usage.completion_tokens == len(stream.token_ids(1))


async def test_calls_are_text_where_nothing_may_be_called() -> None:
    none = {"mode": chat_pb2.TOOL_CHOICE_MODE_NONE}
    async with parsing_worker() as served, served.generate() as stream:
        events = await ask(stream, f"a {CALL}", tools=TOOLS, tool_choice=none)
        # The markers are special tokens, which are not text.
        assert stream.text(1) == 'a f {"a": 1}'
        assert calls_of(events) == []
        assert events[-1].finished.reason == generation_pb2.FINISH_REASON_STOP


async def test_a_second_call_ends_the_output_in_the_engine_too() -> None:
    # It would go on writing for minutes.
    pace = Pace(token_interval_s=0.002)
    text = f"{CALL}{CALL}" + " word" * 2000
    async with parsing_worker(pace) as served, served.generate() as stream:
        events = await ask(stream, text, tools=TOOLS, parallel_tool_calls=False)
        assert len(calls_of(events)) == 1
        assert events[-1].finished.reason == generation_pb2.FINISH_REASON_TOOL_CALLS
        assert events[-1].finished.usage.completion_tokens == len(stream.token_ids(1))
        await eventually(lambda: served.engine.load().running == 0)
        assert len(stream.ends(1)) == 1
        assert stream.numbers(1) == list(range(len(events)))


async def test_every_choice_has_calls_of_its_own() -> None:
    async with parsing_worker() as served, served.generate() as stream:
        events = await ask(stream, f"{CALL}{CALL}", tools=TOOLS, choices=2)
        ids = {each[0] for choice in (0, 1) for each in calls_of(events, choice)}
        assert len(ids) == 4
        events = await ask(
            stream, f"{CALL}{CALL} x", key=2, tools=TOOLS, choices=2, parallel_tool_calls=False
        )
        assert [len(calls_of(events, choice)) for choice in (0, 1)] == [1, 1]
        assert len(stream.ends(2)) == 2


@pytest.mark.parametrize(
    ("sampling", "text", "content", "reason"),
    [
        ({"stop": ["stop"]}, f"a stop {CALL}", "a ", generation_pb2.FINISH_REASON_STOP),
        ({"max_tokens": 3}, f"a{CALL}", "a", generation_pb2.FINISH_REASON_LENGTH),
        (
            {"stream_interval_tokens": 5},
            f"ab{CALL}",
            "ab",
            generation_pb2.FINISH_REASON_TOOL_CALLS,
        ),
        ({"top_logprobs": 1}, f"ab{CALL}", "ab", generation_pb2.FINISH_REASON_TOOL_CALLS),
    ],
    ids=["stop string", "length", "interval", "logprobs"],
)
async def test_what_else_a_request_asks(
    sampling: dict[str, Any], text: str, content: str, reason: int
) -> None:
    async with parsing_worker() as served, served.generate() as stream:
        events = await ask(stream, text, tools=TOOLS, sampling=sampling)
        assert stream.text(1) == content
        assert events[-1].finished.reason == reason
        if "top_logprobs" in sampling:
            logprobs = [each for event in events for each in event.chunk.logprobs]
            assert [each.token_id for each in logprobs] == stream.token_ids(1)


async def test_credit_counts_tokens_that_are_held_back_too() -> None:
    text = f"<think>{'h' * 150}</think>{'a' * 150} {CALL}<tool_call>{'n' * 150}"
    async with parsing_worker() as served, served.generate() as stream:
        chat_prompt = chat(text, tools=TOOLS)
        start = {"model": "scripted", "request_id": "r", "chat": chat_prompt, "credit_tokens": 10}
        await stream.send(1, start=start)
        await stream.read_tokens(1, 10)
        await stream.credit(1, 1000)
        await stream.read_until_ended(1)
        events = stream.events[1]
        assert "".join(each.chunk.reasoning for each in events) == "h" * 150
        assert stream.text(1) == "a" * 150 + " "
        assert len(calls_of(events)) == 1
        # The name that was never complete was paid for, too.
        assert len(stream.token_ids(1)) > 450


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tool_choice": {"mode": chat_pb2.TOOL_CHOICE_MODE_REQUIRED}}, "prompt.tool_choice"),
        ({"tool_choice": {"name": "f"}}, "prompt.tool_choice"),
        ({"tools": [{"name": "f", "strict": True}]}, "prompt.tools"),
    ],
    ids=["required", "named", "strict"],
)
async def test_an_engine_that_cannot_be_constrained_makes_nobody_call(
    fields: dict[str, Any], field: str
) -> None:
    async with parsing_worker() as served, served.generate() as stream:
        await ask(stream, "a", **({"tools": TOOLS} | fields))
        error = stream.error(1)
        assert (error.code, error.field) == ("UNIMPLEMENTED", field)


async def test_a_parser_that_fails_takes_only_its_request() -> None:
    class Broken(TinyFormat):
        def parser(self, *arguments: Any) -> Any:
            parser = super().parser(*arguments)
            feed = parser.feed

            def fail(text: str) -> Any:
                if "f" in text:
                    raise ZeroDivisionError
                return feed(text)

            parser.feed = fail  # type: ignore[method-assign]
            return parser

    engine = ScriptedEngine(ScriptedSettings(repeats=True, chat_format=Broken()))
    async with worker(engine=engine) as served, served.generate() as stream:
        await ask(stream, "ab" + CALL, tools=TOOLS)
        assert stream.error(1).code == "INTERNAL"
        assert stream.numbers(1) == list(range(len(stream.events[1])))
        await ask(stream, "ab", key=2, tools=TOOLS)
        assert stream.text(2) == "ab"
        await eventually(lambda: served.engine.load().running == 0)
