"""Joining the chunks that wait for a slow client."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.relay.merging import merge
from services.gateway.relay.progress import ChoiceProgress
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2


def chunk(number: int, text: str, choice: int = 0) -> worker_pb2.SequenceEvent:
    logprob = generation_pb2.TokenLogprob(token_id=number)
    body = worker_pb2.Chunk(text=text, token_ids=[number], logprobs=[logprob], reasoning=text)
    return worker_pb2.SequenceEvent(choice_index=choice, number=number, chunk=body)


def test_chunks_of_a_choice_become_one() -> None:
    started = worker_pb2.SequenceEvent(started=worker_pb2.Started(prompt_tokens=2))
    finished = worker_pb2.SequenceEvent(number=4, finished=worker_pb2.Finished())
    merged = merge(
        [started, chunk(1, "a"), chunk(1, "x", 1), chunk(2, "b"), chunk(3, "c"), finished]
    )
    assert [event.WhichOneof("event") for event in merged] == [
        "started",
        "chunk",
        "chunk",
        "finished",
    ]
    joined = merged[1]
    assert (joined.choice_index, joined.number, joined.chunk.text) == (0, 3, "abc")
    assert list(joined.chunk.token_ids) == [1, 2, 3]
    assert [logprob.token_id for logprob in joined.chunk.logprobs] == [1, 2, 3]
    assert joined.chunk.reasoning == "abc"
    assert (merged[2].choice_index, merged[2].chunk.text) == (1, "x")


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3)), max_size=20))
def test_nothing_is_lost_and_progress_is_the_same(chunks: list[tuple[int, str]]) -> None:
    events = [chunk(number, text, choice) for number, (choice, text) in enumerate(chunks)]
    one_by_one = [ChoiceProgress() for _ in range(3)]
    for event in events:
        one_by_one[event.choice_index].deliver(event)
    merged = merge(events)
    joined = [ChoiceProgress() for _ in range(3)]
    for event in merged:
        joined[event.choice_index].deliver(event)
    assert joined == one_by_one
    assert len(merged) <= 3
    for choice in range(3):
        text = "".join(text for index, text in chunks if index == choice)
        assert joined[choice].delivered_bytes == len(text.encode())
        got = "".join(event.chunk.text for event in merged if event.choice_index == choice)
        assert got == text


def parsed(number: int, **fields: Any) -> worker_pb2.SequenceEvent:
    return worker_pb2.SequenceEvent(number=number, chunk=worker_pb2.Chunk(**fields))


def test_what_workers_have_parsed_adds_up() -> None:
    call = {"index": 0, "id": "c", "name": "f"}
    events = [
        parsed(1, text="é", token_ids=[1]),
        parsed(2, reasoning="hm", token_ids=[2, 3], output_bytes=9, reasoning_tokens=2),
        parsed(3, tool_calls=[call], output_bytes=12),
        parsed(4, tool_calls=[{"index": 0, "arguments": "{"}], output_bytes=1),
        parsed(
            5,
            tool_calls=[{"index": 0, "arguments": "}"}, {"index": 1, "id": "d", "name": "g"}],
            output_bytes=1,
        ),
        parsed(6, tool_calls=[{"index": 1, "arguments": "{}"}], output_bytes=0),
    ]
    one_by_one = ChoiceProgress()
    for event in events:
        one_by_one.deliver(event)
    (joined,) = merge(events)
    at_once = ChoiceProgress()
    at_once.deliver(joined)
    assert at_once == one_by_one
    assert (at_once.delivered_bytes, at_once.reasoning_tokens) == (25, 2)
    calls = [(each.index, each.id, each.name, each.arguments) for each in joined.chunk.tool_calls]
    assert calls == [(0, "c", "f", "{}"), (1, "d", "g", "{}")]
    so_far = worker_pb2.OutputSoFar()
    at_once.write(so_far)
    assert (so_far.delivered_bytes, so_far.reasoning_tokens) == (25, 2)
