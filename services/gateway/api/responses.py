"""From the events of a generation to the responses that typed clients get."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from services.gateway.relay.generation import Generation
from tokenmesh.gateway.v1 import chat_pb2, completion_pb2
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

Response = TypeVar("Response", chat_pb2.ChatResponse, completion_pb2.CompleteResponse)


async def responses(generation: Generation, kind: type[Response]) -> AsyncIterator[Response]:
    """Started, chunks, Finished for each choice, and Completed.

    Raises:
        MeshError: as iterating the generation.
    """
    finished: list[worker_pb2.Finished] = []
    has_started = False
    async for events in generation:
        for event in events:
            what = event.WhichOneof("event")
            if what == "chunk":
                yield kind(choice_index=event.choice_index, chunk=chunk_of(event.chunk))
            elif what == "finished":
                finished.append(event.finished)
                yield kind(choice_index=event.choice_index, finished=finish_of(event.finished))
            elif not has_started:
                has_started = True
                yield kind(started=start_of(generation, event.started))
    yield kind(completed=completion_of(finished))


def start_of(generation: Generation, started: worker_pb2.Started) -> chat_pb2.GenerationStarted:
    """What a client learns first."""
    message = chat_pb2.GenerationStarted(
        request_id=generation.request_id,
        model=generation.model,
        prompt_tokens=started.prompt_tokens,
        cached_tokens=started.cached_tokens,
        seed=generation.seed,
        prompt_logprobs=started.prompt_logprobs,
    )
    message.created_at.FromNanoseconds(round(generation.created_at_s * 1e9))
    return message


def chunk_of(chunk: worker_pb2.Chunk) -> chat_pb2.GenerationChunk:
    """New output. The two messages have the same fields with the same numbers, but for those that
    are between gateways and workers.
    """
    told = chat_pb2.GenerationChunk.FromString(chunk.SerializeToString())
    if chunk.HasField("output_bytes"):
        told.DiscardUnknownFields()
    return told


def finish_of(finished: worker_pb2.Finished) -> chat_pb2.ChoiceFinished:
    """The end of a choice."""
    message = chat_pb2.ChoiceFinished(reason=finished.reason)
    cause = finished.WhichOneof("stopped_by")
    if cause == "stop_string":
        message.stop_string = finished.stop_string
    elif cause == "stop_token_id":
        message.stop_token_id = finished.stop_token_id
    return message


def completion_of(finished: Iterable[worker_pb2.Finished]) -> chat_pb2.GenerationCompleted:
    """The end of all choices."""
    ends = list(finished)
    longest = max(ends, key=_duration_ns, default=worker_pb2.Finished())
    return chat_pb2.GenerationCompleted(usage=total_usage(ends), timing=longest.timing)


def total_usage(finished: Iterable[worker_pb2.Finished]) -> generation_pb2.Usage:
    """The usage over all choices: their one prompt counts once."""
    total = generation_pb2.Usage()
    for each in finished:
        usage = each.usage
        total.prompt_tokens = max(total.prompt_tokens, usage.prompt_tokens)
        total.cached_tokens = max(total.cached_tokens, usage.cached_tokens)
        total.completion_tokens += usage.completion_tokens
        total.reasoning_tokens += usage.reasoning_tokens
    return total


def _duration_ns(finished: worker_pb2.Finished) -> int:
    timing = finished.timing
    return sum(part.ToNanoseconds() for part in (timing.queue, timing.prefill, timing.decode))
