"""An answer that is sent whole: what comes is collected, and printed as one JSON body."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import array
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.chat_pb2 import ToolCall, ToolCallDelta
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2


@dataclass
class CollectedChoice:
    """A choice as it grows."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    finish_reason: str = ""

    def add(self, chunk: worker_pb2.Chunk) -> None:
        """Takes new output."""
        self.texts.append(chunk.text)
        self.reasoning.append(chunk.reasoning)
        self.logprobs.extend(chunk.logprobs)
        for delta in chunk.tool_calls:
            self._add_tool_call(delta)

    def _add_tool_call(self, delta: ToolCallDelta) -> None:
        call = self.tool_calls.setdefault(delta.index, ToolCall())
        call.id += delta.id
        call.name += delta.name
        call.arguments += delta.arguments


class AnswerBody(ABC):
    """Collects the events of one answer, and prints them at its end.

    A choice's place is counted over all prompts: with two prompts of three choices, the second
    prompt's are 3, 4 and 5.
    """

    kind: ClassVar[str]
    """OpenAI's name for the object."""

    def __init__(
        self, envelope: Envelope, *, with_logprobs: bool, choices_per_prompt: int = 1
    ) -> None:
        self._envelope = envelope
        self._with_logprobs = with_logprobs
        self._choices_per_prompt = choices_per_prompt
        self._usage = UsageSum()
        self._choices: dict[int, CollectedChoice] = {}

    def collect(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> None:
        """Takes what came."""
        for each in events:
            kind = each.WhichOneof("event")
            index = prompt_index * self._choices_per_prompt + each.choice_index
            choice = self._choices.setdefault(index, CollectedChoice())
            if kind == "started":
                # Those of the prompt come first.
                choice.logprobs.extend(each.started.prompt_logprobs)
            elif kind == "chunk":
                choice.add(each.chunk)
            elif kind == "finished":
                choice.finish_reason = finish_reason(each.finished.reason)
                self._usage.add(prompt_index, each.finished.usage)

    def print(self) -> bytes:
        """The body."""
        choices = array(
            self.print_choice(index, self._choices[index]) for index in sorted(self._choices)
        )
        opening = self._envelope.opening(self.kind)
        return f'{opening}{choices},"usage":{self._usage.json()}}}'.encode()

    @abstractmethod
    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""
