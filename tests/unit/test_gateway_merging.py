"""Joining the chunks that wait for a slow client."""

from __future__ import annotations

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
