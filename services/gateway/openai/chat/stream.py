"""A streamed chat completion, as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import DONE, array, event, quoted
from services.gateway.openai.logprobs import chat_logprobs
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta
from tokenmesh.worker.v1 import worker_pb2

KIND = "chat.completion.chunk"


class ChatStream:
    """Prints the events of one answer. Only the text of a token is encoded when it comes."""

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._opening = envelope.opening(KIND)
        self._include_usage = include_usage
        self._closing = '],"usage":null}' if include_usage else "]}"
        self._usage = UsageSum()
        self._opened_choices: set[int] = set()

    def print(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> bytes:
        """The server-sent events for what came; empty when there is nothing to tell yet."""
        printed: list[bytes] = []
        for each in events:
            kind = each.WhichOneof("event")
            if kind == "started":
                continue
            index = each.choice_index
            if index not in self._opened_choices:
                self._opened_choices.add(index)
                printed.append(self._chunk(index, '"role":"assistant","content":""'))
            if kind == "chunk":
                chunk = each.chunk
                delta = _delta(chunk)
                if chunk.logprobs:
                    delta = delta or '"content":""'
                    logprobs = chat_logprobs(chunk.logprobs)
                    printed.append(self._chunk(index, delta, logprobs=logprobs))
                elif delta:
                    printed.append(self._chunk(index, delta))
            else:
                self._usage.add(prompt_index, each.finished.usage)
                reason = quoted(finish_reason(each.finished.reason))
                printed.append(self._chunk(index, "", reason=reason))
        return b"".join(printed)

    def end(self) -> bytes:
        """The last events."""
        if not self._include_usage:
            return DONE
        return event(f'{self._opening}[],"usage":{self._usage.json()}}}') + DONE

    def _chunk(
        self, index: int, delta: str, *, logprobs: str = "null", reason: str = "null"
    ) -> bytes:
        return event(
            f'{self._opening}[{{"index":{index},"delta":{{{delta}}},"logprobs":{logprobs},'
            f'"finish_reason":{reason}}}{self._closing}'
        )


def _delta(chunk: worker_pb2.Chunk) -> str:
    """What a chunk adds to the message, as the fields of an object."""
    if not chunk.reasoning and not chunk.tool_calls:
        return f'"content":{quoted(chunk.text)}' if chunk.text else ""
    fields = []
    if chunk.reasoning:
        fields.append(f'"reasoning_content":{quoted(chunk.reasoning)}')
    if chunk.text:
        fields.append(f'"content":{quoted(chunk.text)}')
    if chunk.tool_calls:
        fields.append(f'"tool_calls":{array(_tool_call(call) for call in chunk.tool_calls)}')
    return ",".join(fields)


def _tool_call(call: ToolCallDelta) -> str:
    opening = f'{{"index":{call.index},'
    function = f'"arguments":{quoted(call.arguments)}}}}}'
    if call.HasField("id"):
        opening += f'"id":{quoted(call.id)},"type":"function",'
    if call.HasField("name"):
        function = f'"name":{quoted(call.name)},{function}'
    return f'{opening}"function":{{{function}'
