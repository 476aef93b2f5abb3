"""Outputs of every family, read as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.chat_formats.base import (
    Content,
    Delta,
    Reasoning,
    Tool,
    ToolCallArguments,
    ToolCallStarted,
    ToolUse,
)
from services.worker.chat_formats.names import by_name

TOOLS = ToolUse((Tool("look_up", ""), Tool("add", "")))


@dataclass
class Output:
    """What a client makes of the deltas."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)

    def take(self, deltas: Iterable[Delta]) -> Output:
        for delta in deltas:
            match delta:
                case Content(text):
                    self.content += text
                case Reasoning(text):
                    self.reasoning += text
                case ToolCallStarted(call_index, name):
                    assert call_index == len(self.calls)
                    self.calls.append([name, ""])
                case ToolCallArguments(call_index, text):
                    assert call_index == len(self.calls) - 1
                    self.calls[-1][1] += text
        return self


@dataclass(frozen=True)
class Transcript:
    """An output as a model writes it, and what is in it."""

    chat_format: str
    text: str
    content: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, str]] = ()
    prompt_end: str = ""
    tool_use: ToolUse = TOOLS


TRANSCRIPTS = {
    "hermes, two calls": Transcript(
        "hermes",
        "Let me see.\n<tool_call>"
        '\n{"name": "look_up", "arguments": {"city": "Oslo", "t": "</t>"}}\n'
        '</tool_call>\n<tool_call>\n{"name": "add"}\n</tool_call>',
        content="Let me see.",
        calls=[("look_up", '{"city": "Oslo", "t": "</t>"}'), ("add", "{}")],
    ),
    "qwen3, reasoning": Transcript(
        "qwen3",
        "<think>\nWell,\n\nlet's see.\n</think>\n\nHello <there>",
        reasoning="Well,\n\nlet's see.",
        content="Hello <there>",
    ),
}


def read(transcript: Transcript, pieces: Iterable[str], *, is_cut: bool = False) -> Output:
    parser = by_name(transcript.chat_format).parser(transcript.prompt_end, transcript.tool_use)
    output = Output()
    for piece in pieces:
        output.take(parser.feed(piece))
    return output.take(parser.finish(is_cut=is_cut))


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_what_is_in_an_output(transcript: Transcript) -> None:
    output = read(transcript, [transcript.text])
    assert output == Output(
        transcript.content, transcript.reasoning, [list(call) for call in transcript.calls]
    )


@given(st.sampled_from(list(TRANSCRIPTS.values())), st.data())
def test_cuts_change_nothing(transcript: Transcript, data: st.DataObject) -> None:
    text = transcript.text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(transcript, pieces) == read(transcript, [text])
