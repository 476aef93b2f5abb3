"""The items that a response's output is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from services.gateway.openai.json_text import array, quoted
from services.gateway.openai.responses import ids
from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta

IN_PROGRESS = "in_progress"
COMPLETED = "completed"
INCOMPLETE = "incomplete"


class OutputItem(ABC):
    """One item of the output. Its text grows until it is closed."""

    prefix: ClassVar[str]

    def __init__(self, index: int) -> None:
        self.item_id = ids.new_id(self.prefix)
        self.index = index
        self.status = IN_PROGRESS
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All that has come."""
        return "".join(self._texts)

    def add(self, text: str) -> None:
        """Takes more of it."""
        self._texts.append(text)

    @abstractmethod
    def json(self) -> str:
        """The item as a JSON object; as it was opened while it is in progress."""


class MessageItem(OutputItem):
    """What the model says."""

    prefix = ids.MESSAGE

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.logprobs: list[str] = []
        """JSON objects."""

    def part(self) -> str:
        """Its one content part, as a JSON object."""
        return (
            f'{{"type":"output_text","annotations":[],"logprobs":{array(self.logprobs)},'
            f'"text":{quoted(self.text)}}}'
        )

    def json(self) -> str:
        """The item as a JSON object."""
        content = "[]" if self.status == IN_PROGRESS else f"[{self.part()}]"
        return (
            f'{{"id":"{self.item_id}","type":"message","status":"{self.status}",'
            f'"content":{content},"role":"assistant"}}'
        )


class ReasoningItem(OutputItem):
    """What the model thinks. As a summary, it is shown where clients look for one."""

    prefix = ids.REASONING

    def __init__(self, index: int, *, is_summary: bool) -> None:
        super().__init__(index)
        self.is_summary = is_summary

    def part(self) -> str:
        """Its one part, as a JSON object."""
        kind = "summary_text" if self.is_summary else "reasoning_text"
        return f'{{"type":"{kind}","text":{quoted(self.text)}}}'

    def json(self) -> str:
        """The item as a JSON object."""
        parts = "[]" if self.status == IN_PROGRESS else f"[{self.part()}]"
        summary, content = (parts, "[]") if self.is_summary else ("[]", parts)
        return (
            f'{{"id":"{self.item_id}","type":"reasoning","status":"{self.status}",'
            f'"summary":{summary},"content":{content},"encrypted_content":null}}'
        )


class FunctionCallItem(OutputItem):
    """A call of a function, whose text is that of the arguments."""

    prefix = ids.FUNCTION_CALL

    def __init__(self, index: int, delta: ToolCallDelta) -> None:
        super().__init__(index)
        self.call_index = delta.index
        self.call_id = delta.id or ids.new_id(ids.CALL)
        self.name = delta.name

    def json(self) -> str:
        """The item as a JSON object."""
        arguments = "" if self.status == IN_PROGRESS else self.text
        return (
            f'{{"id":"{self.item_id}","type":"function_call","status":"{self.status}",'
            f'"arguments":{quoted(arguments)},"call_id":{quoted(self.call_id)},'
            f'"name":{quoted(self.name)}}}'
        )
