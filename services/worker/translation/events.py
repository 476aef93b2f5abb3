"""From an engine's events to the proto's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf import duration_pb2

from services.mesh import status
from services.worker.engines.base import (
    Chunk,
    Failed,
    Finished,
    FinishReason,
    Started,
    TokenLogprob,
)
from services.worker.parsing.parsed import ParsedChunk
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

_FINISH_REASONS: Mapping[FinishReason, generation_pb2.FinishReason.ValueType] = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: generation_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.ABORTED: generation_pb2.FINISH_REASON_ABORTED,
}


def write_event(
    event: Started | Chunk | Finished | Failed, target: worker_pb2.SequenceEvent
) -> None:
    """Writes what happened into `target`, whose key, choice and number are set elsewhere."""
    if isinstance(event, Chunk):
        chunk = target.chunk
        chunk.text = event.text
        chunk.token_ids.extend(event.token_ids)
        if event.logprobs:
            _write_logprobs(event.logprobs, chunk.logprobs)
        if isinstance(event, ParsedChunk):
            _write_parsed(event, chunk)
    elif isinstance(event, Started):
        target.started.prompt_tokens = event.prompt_tokens
        target.started.cached_tokens = event.cached_tokens
        if event.prompt_logprobs:
            _write_logprobs(event.prompt_logprobs, target.started.prompt_logprobs)
    elif isinstance(event, Finished):
        _write_finished(event, target.finished)
    else:
        target.failed.status.CopyFrom(status.to_status(event.error))


def _write_parsed(event: ParsedChunk, chunk: worker_pb2.Chunk) -> None:
    chunk.reasoning = event.reasoning
    chunk.output_bytes = event.output_bytes
    chunk.reasoning_tokens = event.reasoning_tokens
    for piece in event.tool_calls:
        chunk.tool_calls.add(
            index=piece.call_index,
            id=piece.call_id,
            name=piece.name,
            arguments=piece.arguments,
        )


def _write_finished(event: Finished, target: worker_pb2.Finished) -> None:
    target.reason = _FINISH_REASONS[event.reason]
    target.usage.prompt_tokens = event.prompt_tokens
    target.usage.completion_tokens = event.completion_tokens
    target.usage.cached_tokens = event.cached_tokens
    target.usage.reasoning_tokens = event.reasoning_tokens
    _write_duration(event.timing.queue_s, target.timing.queue)
    _write_duration(event.timing.prefill_s, target.timing.prefill)
    _write_duration(event.timing.decode_s, target.timing.decode)
    if event.stop_string is not None:
        target.stop_string = event.stop_string
    elif event.stop_token_id is not None:
        target.stop_token_id = event.stop_token_id


def _write_duration(seconds: float, target: duration_pb2.Duration) -> None:
    nanoseconds = max(0, round(seconds * 1e9))
    target.seconds, target.nanos = divmod(nanoseconds, 1_000_000_000)


def _write_logprobs(
    logprobs: Iterable[TokenLogprob], target: Iterable[generation_pb2.TokenLogprob]
) -> None:
    for each in logprobs:
        added = target.add()  # type: ignore[attr-defined]
        added.token_id = each.token_id
        added.text = each.text
        added.bytes = each.token_bytes
        added.logprob = each.logprob
        _write_logprobs(each.top, added.top)
