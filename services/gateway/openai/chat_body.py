"""A chat completion as one JSON body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import array, quoted
from services.gateway.openai.logprobs import chat_logprobs
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.chat_pb2 import ToolCall, ToolCallDelta
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2

KIND = "chat.completion"


@dataclass
class _Choice:
    """A choice as it grows."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    finish_reason: str = ""

    def add_tool_call(self, delta: ToolCallDelta) -> None:
        call = self.tool_calls.setdefault(delta.index, ToolCall())
        call.id += delta.id
        call.name += delta.name
        call.arguments += delta.arguments


class ChatBody:
    """Collects the events of one answer, and prints them at its end."""

    def __init__(self, envelope: Envelope, *, with_logprobs: bool) -> None:
        self._envelope = envelope
        self._with_logprobs = with_logprobs
        self._usage = UsageSum()
        self._choices: dict[int, _Choice] = {}

    def collect(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> None:
        """Takes what came."""
        for each in events:
            kind = each.WhichOneof("event")
            choice = self._choices.setdefault(each.choice_index, _Choice())
            if kind == "chunk":
                choice.texts.append(each.chunk.text)
                choice.reasoning.append(each.chunk.reasoning)
                choice.logprobs.extend(each.chunk.logprobs)
                for delta in each.chunk.tool_calls:
                    choice.add_tool_call(delta)
            elif kind == "finished":
                choice.finish_reason = finish_reason(each.finished.reason)
                self._usage.add(prompt_index, each.finished.usage)

    def print(self) -> bytes:
        """The body."""
        choices = array(
            self._choice(index, self._choices[index]) for index in sorted(self._choices)
        )
        opening = self._envelope.opening(KIND)
        return f'{opening}{choices},"usage":{self._usage.json()}}}'.encode()

    def _choice(self, index: int, choice: _Choice) -> str:
        logprobs = chat_logprobs(choice.logprobs) if self._with_logprobs else "null"
        return (
            f'{{"index":{index},"message":{_message(choice)},"logprobs":{logprobs},'
            f'"finish_reason":{quoted(choice.finish_reason)}}}'
        )


def _message(choice: _Choice) -> str:
    text = "".join(choice.texts)
    reasoning = "".join(choice.reasoning)
    calls = [choice.tool_calls[index] for index in sorted(choice.tool_calls)]
    content = "null" if calls and not text else quoted(text)
    message = f'{{"role":"assistant","content":{content},"refusal":null'
    if reasoning:
        message += f',"reasoning_content":{quoted(reasoning)}'
    if calls:
        message += f',"tool_calls":{array(_tool_call(call) for call in calls)}'
    return message + "}"


def _tool_call(call: ToolCall) -> str:
    return (
        f'{{"id":{quoted(call.id)},"type":"function","function":'
        f'{{"name":{quoted(call.name)},"arguments":{quoted(call.arguments)}}}}}'
    )
