"""Joins the chunks that a slow client finds waiting into one for each choice."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence

from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta
from tokenmesh.worker.v1 import worker_pb2


def merge(events: Sequence[worker_pb2.SequenceEvent]) -> list[worker_pb2.SequenceEvent]:
    """The same output in as few events as keep the order within each choice.

    A joined chunk has the number of the last that went into it. The events given are used up.
    """
    merged: list[worker_pb2.SequenceEvent] = []
    runs: list[list[worker_pb2.SequenceEvent]] = []
    open_runs: dict[int, list[worker_pb2.SequenceEvent]] = {}
    for event in events:
        index = event.choice_index
        if not event.HasField("chunk"):
            open_runs.pop(index, None)
            merged.append(event)
        elif index in open_runs:
            open_runs[index].append(event)
        else:
            open_runs[index] = [event]
            runs.append(open_runs[index])
            merged.append(event)
    for run in runs:
        if len(run) > 1:
            _join(run)
    return merged


def _join(run: list[worker_pb2.SequenceEvent]) -> None:
    """Puts the chunks of a run into its first. Each text is copied once, however long the run."""
    chunks = [event.chunk for event in run]
    chunk, *further = chunks
    run[0].number = run[-1].number
    if any(each.HasField("output_bytes") for each in chunks):
        chunk.output_bytes = sum(_output_bytes(each) for each in chunks)
        chunk.reasoning_tokens = sum(each.reasoning_tokens for each in chunks)
    chunk.text = "".join([each.text for each in chunks])
    if reasoning := "".join([each.reasoning for each in chunks]):
        chunk.reasoning = reasoning
    for each in further:
        chunk.token_ids.extend(each.token_ids)
        if each.logprobs:
            chunk.logprobs.extend(each.logprobs)
        if each.tool_calls:
            _join_calls(chunk.tool_calls, each.tool_calls)


def _join_calls(calls: MutableSequence[ToolCallDelta], further: Iterable[ToolCallDelta]) -> None:
    """Adds to the last call where there is more of it."""
    for each in further:
        if calls and calls[-1].index == each.index:
            calls[-1].arguments += each.arguments
        else:
            calls.append(each)


def _output_bytes(chunk: worker_pb2.Chunk) -> int:
    return chunk.output_bytes if chunk.HasField("output_bytes") else len(chunk.text.encode())
