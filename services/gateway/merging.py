"""Joins the chunks that a slow client finds waiting into one for each choice."""

from __future__ import annotations

from collections.abc import Sequence

from tokenmesh.worker.v1 import worker_pb2


def merge(events: Sequence[worker_pb2.SequenceEvent]) -> list[worker_pb2.SequenceEvent]:
    """The same output in as few events as keep the order within each choice.

    A joined chunk has the number of the last that went into it. The events given are used up.
    """
    merged: list[worker_pb2.SequenceEvent] = []
    joined: dict[int, worker_pb2.SequenceEvent] = {}
    for event in events:
        index = event.choice_index
        if not event.HasField("chunk"):
            joined.pop(index, None)
            merged.append(event)
        elif index not in joined:
            joined[index] = event
            merged.append(event)
        else:
            joined[index].number = event.number
            _extend(joined[index].chunk, event.chunk)
    return merged


def _extend(chunk: worker_pb2.Chunk, further: worker_pb2.Chunk) -> None:
    chunk.text += further.text
    chunk.token_ids.extend(further.token_ids)
    chunk.logprobs.extend(further.logprobs)
    chunk.reasoning += further.reasoning
    chunk.tool_calls.extend(further.tool_calls)
