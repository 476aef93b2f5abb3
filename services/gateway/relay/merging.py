"""Joins the chunks that a slow client finds waiting into one for each choice."""

from __future__ import annotations

from collections.abc import Sequence

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
    chunk = run[0].chunk
    further = [event.chunk for event in run[1:]]
    run[0].number = run[-1].number
    chunk.text = "".join((chunk.text, *(each.text for each in further)))
    chunk.reasoning = "".join((chunk.reasoning, *(each.reasoning for each in further)))
    for each in further:
        chunk.token_ids.extend(each.token_ids)
        chunk.logprobs.extend(each.logprobs)
        chunk.tool_calls.extend(each.tool_calls)
