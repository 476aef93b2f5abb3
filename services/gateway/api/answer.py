"""The answer to one turn of a held conversation, as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from services.gateway.api.responses import chunk_of, completion_of, finish_of, start_of
from services.gateway.relay.generation import Generation
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

Response = chat_pb2.ConverseResponse


class Answer:
    """Turns a generation's events into responses, and keeps what was said."""

    def __init__(self, turn_number: int) -> None:
        self._turn_number = turn_number
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, mesh_chat_pb2.ToolCall] = {}
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._finished: worker_pb2.Finished | None = None

    def take(
        self, generation: Generation, events: Sequence[worker_pb2.SequenceEvent]
    ) -> Iterator[Response]:
        """The responses for the next events."""
        number = self._turn_number
        for event in events:
            what = event.WhichOneof("event")
            if what == "chunk":
                self._add(event.chunk)
                yield Response(turn_number=number, chunk=chunk_of(event.chunk))
            elif what == "finished":
                self._finished = event.finished
                yield Response(turn_number=number, finished=finish_of(event.finished))
            else:
                self._prompt_tokens = event.started.prompt_tokens
                started = start_of(generation, event.started)
                yield Response(turn_number=number, started=started)

    def end(self) -> Response:
        """The last response: the answer is complete, or it was interrupted."""
        if self._finished is not None:
            completed = completion_of([self._finished])
            return Response(turn_number=self._turn_number, completed=completed)
        usage = generation_pb2.Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            reasoning_tokens=self._reasoning_tokens,
        )
        interrupted = Response.Interrupted(usage=usage)
        return Response(turn_number=self._turn_number, interrupted=interrupted)

    def message(self) -> mesh_chat_pb2.Message | None:
        """What was said so far, as an assistant message; None when nothing was. A call that was
        interrupted was not made.
        """
        text, reasoning = "".join(self._texts), "".join(self._reasoning)
        calls = [
            self._calls[index]
            for index in sorted(self._calls)
            if self._finished is not None or _is_json(self._calls[index].arguments)
        ]
        if not text and not calls:
            return None
        message = mesh_chat_pb2.Message(
            role=mesh_chat_pb2.ROLE_ASSISTANT,
            content=[mesh_chat_pb2.ContentPart(text=text)] if text else [],
            tool_calls=calls,
        )
        if reasoning:
            message.reasoning = reasoning
        return message

    def _add(self, chunk: worker_pb2.Chunk) -> None:
        self._texts.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        self._completion_tokens += len(chunk.token_ids)
        self._reasoning_tokens += chunk.reasoning_tokens
        for delta in chunk.tool_calls:
            call = self._calls.setdefault(delta.index, mesh_chat_pb2.ToolCall())
            call.id = call.id or delta.id
            call.name = call.name or delta.name
            call.arguments += delta.arguments


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
