"""An answer that is sent whole: what comes is collected, and printed as one JSON body."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import array, encoded
from services.gateway.openai.stop_reason import stop_reason
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.chat_pb2 import ToolCall, ToolCallDelta
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2

PromptTokens = Mapping[int, Sequence[int]]
"""Token ids by the prompt's place, where they are told."""


@dataclass
class CollectedChoice:
    """A choice as it grows."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    finish_reason: str = ""
    stop_reason: str = ""
    """JSON fields; empty where the client's own stops did not end it."""

    def add(self, chunk: worker_pb2.Chunk) -> None:
        """Takes new output."""
        self.texts.append(chunk.text)
        self.reasoning.append(chunk.reasoning)
        self.token_ids.extend(chunk.token_ids)
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
        self,
        envelope: Envelope,
        options: AnswerOptions,
        *,
        choices_per_prompt: int = 1,
        prompt_tokens: PromptTokens | None = None,
    ) -> None:
        self._envelope = envelope
        self._options = options
        self._choices_per_prompt = choices_per_prompt
        self._prompt_tokens = prompt_tokens or {}
        self._usage = UsageSum()
        self._choices: dict[int, CollectedChoice] = {}

    def collect(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> None:
        """Takes what came."""
        for each in events:
            kind = each.WhichOneof("event")
            index = prompt_index * self._choices_per_prompt + each.choice_index
            choice = self._choices.setdefault(index, CollectedChoice())
            if kind == "started":
                choice.prompt_logprobs.extend(each.started.prompt_logprobs)
            elif kind == "chunk":
                choice.add(each.chunk)
            elif kind == "finished":
                choice.finish_reason = finish_reason(each.finished.reason)
                choice.stop_reason = stop_reason(each.finished)
                self._usage.add(prompt_index, each.finished.usage)

    def print(self) -> bytes:
        """The body."""
        choices = array(
            self.print_choice(index, self._choices[index]) for index in sorted(self._choices)
        )
        opening = self._envelope.opening(self.kind)
        return f'{opening}{choices},"usage":{self._usage.json()}{self.print_more()}}}'.encode()

    @abstractmethod
    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""

    def print_more(self) -> str:
        """Fields after the usage, each after a comma."""
        return ""

    def _token_ids(self, choice: CollectedChoice) -> str:
        return f',"token_ids":{encoded(choice.token_ids)}' if self._options.token_ids else ""
