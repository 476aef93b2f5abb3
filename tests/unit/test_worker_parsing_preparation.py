"""What is asked of an engine for a request whose output is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.mesh.errors import UnsupportedError
from services.worker.chat_formats.base import (
    ChatFormat,
    Content,
    Delta,
    Reasoning,
    Tool,
    ToolCallStarted,
    ToolUse,
)
from services.worker.chat_formats.names import by_name
from services.worker.engines.base import ChatPrompt, EngineRequest, OutputSoFar
from services.worker.engines.forms import Json, Repeated
from services.worker.engines.sampling import MAX_CHOICES
from services.worker.engines.scripted import ScriptedEngine, ScriptedSettings
from services.worker.parsing.continuation import parser_of
from services.worker.parsing.preparation import prepare
from tests.fakes.tiny_format import CALL, CALLED, THINK, THOUGHT, TinyFormat

TOOLS = ToolUse((Tool("f", ""),))


class Constrained(ScriptedEngine):
    """Says that it can be held to a form."""

    def __init__(self, chat_format: ChatFormat | None) -> None:
        super().__init__(ScriptedSettings(chat_format=chat_format))

    @property
    def models(self) -> Any:
        (model,) = super().models
        return (replace(model, capabilities=model.capabilities | {"CONSTRAINED_DECODING"}),)


def request(fields: Mapping[str, Any] | None = None, **own: Any) -> EngineRequest:
    given: dict[str, Any] = {"prompt": ChatPrompt([{"role": "user", "content": "Hi"}]), **own}
    return EngineRequest("key", "r", "scripted", sampling_fields=fields or {}, **given)


@pytest.mark.parametrize(
    ("chat_format", "tool_use", "own"),
    [
        (None, TOOLS, {}),
        (by_name("plain"), TOOLS, {}),
        (by_name("hermes"), ToolUse(), {}),
        (TinyFormat(), TOOLS, {"prompt": "a text"}),
        (TinyFormat(), TOOLS, {"model": "nobody's"}),
    ],
    ids=["no format", "plain", "no tools", "no chat", "another model"],
)
async def test_what_has_nothing_to_parse_is_left_as_it_is(
    chat_format: ChatFormat | None, tool_use: ToolUse, own: dict[str, Any]
) -> None:
    asked = replace(request(), **own)
    prepared, parsing = await prepare(Constrained(chat_format), asked, tool_use)
    assert prepared is asked
    assert parsing is None


async def test_an_engine_is_given_the_rendered_prompt_and_the_markers() -> None:
    so_far = {0: OutputSoFar((1,), 2, 3)}
    engine = ScriptedEngine(ScriptedSettings(chat_format=TinyFormat()))
    prepared, parsing = await prepare(engine, request(output_so_far=so_far), TOOLS)
    assert parsing is not None
    assert isinstance(prepared.prompt, ChatPrompt)
    assert prepared.prompt.rendered == "user: Hi\nassistant:"
    assert prepared.visible_markers == {THINK, THOUGHT, CALL, CALLED}
    assert prepared.output_so_far == {0: OutputSoFar((1,), 2, None)}
    assert "constraint" not in prepared.sampling_fields


async def test_a_forced_call_has_a_form_and_an_answer_keeps_its_own() -> None:
    engine = Constrained(TinyFormat())
    forced = replace(TOOLS, is_required=True)
    prepared, _ = await prepare(engine, request(), forced)
    assert isinstance(prepared.sampling_fields["constraint"], Repeated)
    prepared, _ = await prepare(engine, request({"constraint": Json()}), ToolUse())
    assert prepared.sampling_fields["constraint"] == Json()


@pytest.mark.parametrize(
    ("tool_use", "field"),
    [
        (replace(TOOLS, is_required=True), "prompt.tool_choice"),
        (ToolUse((Tool("f", "", strict=True),)), "prompt.tools"),
    ],
)
@pytest.mark.parametrize(
    "engine",
    [
        ScriptedEngine(ScriptedSettings(chat_format=TinyFormat())),
        Constrained(None),
        Constrained(by_name("plain")),
    ],
    ids=["no constraints", "no format", "plain"],
)
async def test_what_cannot_be_forced_is_refused(
    engine: ScriptedEngine, tool_use: ToolUse, field: str
) -> None:
    with pytest.raises(UnsupportedError) as refused:
        await prepare(engine, request(), tool_use)
    assert refused.value.field == field


async def test_choices_out_of_range_are_left_to_the_engine() -> None:
    engine = ScriptedEngine(ScriptedSettings(chat_format=TinyFormat()))
    prepared, parsing = await prepare(engine, request({"choices": 10**12}), TOOLS)
    assert prepared.sampling_fields["choices"] == 10**12
    assert parsing is not None
    assert parsing.choices == MAX_CHOICES


@pytest.mark.parametrize(
    ("content", "output", "told"),
    [
        ("<think>half a", " thought</think>Hi", [Reasoning(" thought"), Content("Hi")]),
        ("<think>half a</thi", "nk>Hi", [Content("Hi")]),
        ("<think>a</think>Hel", "lo", [Content("lo")]),
        ("Hello <", "x", [Content("x")]),
        ("Hello ", "world", [Content("world")]),
        ("So: ", "<tool_call>f ", [ToolCallStarted(0, "f")]),
    ],
)
def test_a_message_that_is_continued(content: str, output: str, told: list[Delta]) -> None:
    prompt = continued(content)
    parser = parser_of(TinyFormat(), prompt, f"user: ?\nassistant: {content}", TOOLS)
    assert parser.feed(output) == told


def test_a_message_that_the_template_writes_otherwise_is_continued_as_it_comes() -> None:
    prompt = continued("<think>half a")
    parser = parser_of(TinyFormat(), prompt, "user: ?\nassistant: half a", TOOLS)
    assert parser.feed(" thought") == [Content(" thought")]


def continued(content: str) -> ChatPrompt:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]
    return ChatPrompt(messages, add_generation_prompt=False, continue_final_message=True)
