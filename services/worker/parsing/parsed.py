"""Output that was parsed."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.engines.base import Chunk


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """What a chunk adds to a tool call."""

    call_index: int
    """Which call of the choice, from 0."""
    call_id: str | None
    """Set, as `name` is, in the first piece of a call."""
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class ParsedChunk(Chunk):
    """A chunk of which `text` is the answer, apart from all else that the model wrote."""

    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    output_bytes: int = 0
    """UTF-8 bytes of the model's own text that it stands for: see ChoiceParsing."""
    reasoning_tokens: int = 0
    """Of `token_ids`, those that were spent on reasoning."""
