"""What a chunk adds to a streamed message."""

from __future__ import annotations

from collections.abc import Iterator

from services.gateway.openai.json_text import quoted
from tokenmesh.worker.v1 import worker_pb2


def deltas(chunk: worker_pb2.Chunk, *, with_reasoning: bool) -> Iterator[str]:
    """The fields of each delta. Each has one field, and one call where it is of calls: many clients
    look at no more.
    """
    if chunk.reasoning and with_reasoning:
        yield f'"reasoning_content":{quoted(chunk.reasoning)}'
    if chunk.text:
        yield f'"content":{quoted(chunk.text)}'
    for call in chunk.tool_calls:
        if call.HasField("id"):
            function = f'{{"name":{quoted(call.name)},"arguments":""}}'
            yield _tool_call(
                f'"index":{call.index},"id":{quoted(call.id)},"type":"function",'
                f'"function":{function}'
            )
        if call.arguments:
            function = f'{{"arguments":{quoted(call.arguments)}}}'
            yield _tool_call(f'"index":{call.index},"function":{function}')


def shows(chunk: worker_pb2.Chunk) -> bool:
    """Whether a chunk is to be told: not where all that the model has written is held back."""
    return bool(
        chunk.text
        or chunk.reasoning
        or chunk.tool_calls
        or chunk.logprobs
        or not chunk.HasField("output_bytes")
    )


def _tool_call(fields: str) -> str:
    return f'"tool_calls":[{{{fields}}}]'
