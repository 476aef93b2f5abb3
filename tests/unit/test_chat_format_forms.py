"""What obeys the form of a forced call is read as such a call."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.names import NAMES, by_name
from services.worker.engines.forms import Form, Json, Regex, nodes
from tests.chat_outputs import Output
from tests.constrained import text_of, walk
from tests.forms import texts_of

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "unit": {"enum": ["<a>", "b"]},
        "days": {"type": "integer"},
        "places": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"x": {"type": "boolean"}}},
    },
    "required": ["days", "text"],
}
SCHEMAS = {"look_up": json.dumps(SCHEMA), "add-2": '{"type": "object", "properties": {}}', "c": ""}
TOOLS = tuple(Tool(name, schema) for name, schema in SCHEMAS.items())
STRICT = tuple(Tool(name, schema, strict=True) for name, schema in SCHEMAS.items())
ANSWER = Json(
    '{"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}'
)
CALLING = tuple(name for name in NAMES if by_name(name).can_call)
PROMPT_ENDS = (
    "assistant\n",
    "<think>\n",
    "<think>\n\n</think>\n\n",
    "[THINK]",
    "<|start|>assistant",
)


def output_of(name: str, prompt_end: str, tool_use: ToolUse, text: str) -> Output:
    parser = by_name(name).parser(prompt_end, tool_use)
    return Output().read(parser, [text])


def form_of(name: str, prompt_end: str, tool_use: ToolUse, answer: Form | None = None) -> Form:
    form = by_name(name).form(prompt_end, tool_use, answer)
    assert form is not None
    return form


def check_calls(output: Output) -> None:
    for name, arguments in output.calls:
        jsonschema.validate(json.loads(arguments), json.loads(SCHEMAS[name] or "{}"))


@pytest.mark.parametrize("name", CALLING)
@given(st.data(), st.sampled_from(PROMPT_ENDS), st.booleans(), st.booleans())
@settings(max_examples=10, deadline=None)
def test_calls_that_must_be_made_are_made(
    name: str, data: st.DataObject, prompt_end: str, is_parallel: bool, is_named: bool
) -> None:
    tool_use = ToolUse(TOOLS[:1] if is_named else TOOLS, is_required=True, is_parallel=is_parallel)
    text = data.draw(texts_of(form_of(name, prompt_end, tool_use)))
    output = output_of(name, prompt_end, tool_use, text)
    assert not output.content
    assert output.calls
    assert is_parallel or len(output.calls) == 1
    assert not is_named or {call[0] for call in output.calls} == {"look_up"}
    check_calls(output)


@pytest.mark.parametrize("name", CALLING)
@given(st.data(), st.sampled_from(PROMPT_ENDS), st.booleans())
@settings(max_examples=10, deadline=None)
def test_calls_of_strict_tools_match_their_schemas(
    name: str, data: st.DataObject, prompt_end: str, is_parallel: bool
) -> None:
    tool_use = ToolUse(STRICT, is_parallel=is_parallel)
    text = data.draw(texts_of(form_of(name, prompt_end, tool_use)))
    output = output_of(name, prompt_end, tool_use, text)
    assert is_parallel or len(output.calls) <= 1
    check_calls(output)


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), st.sampled_from(PROMPT_ENDS))
@settings(max_examples=10, deadline=None)
def test_an_answer_in_a_form_is_the_content(
    name: str, data: st.DataObject, prompt_end: str
) -> None:
    text = data.draw(texts_of(form_of(name, prompt_end, ToolUse(), ANSWER)))
    output = output_of(name, prompt_end, ToolUse(), text)
    jsonschema.validate(json.loads(output.content), json.loads(ANSWER.schema))
    assert not output.calls


@pytest.mark.parametrize("name", CALLING)
@given(st.data(), st.sampled_from(PROMPT_ENDS))
@settings(max_examples=10, deadline=None)
def test_an_answer_in_a_form_or_calls(name: str, data: st.DataObject, prompt_end: str) -> None:
    tool_use = ToolUse(STRICT)
    text = data.draw(texts_of(form_of(name, prompt_end, tool_use, ANSWER)))
    output = output_of(name, prompt_end, tool_use, text)
    if output.calls:
        assert not output.content
        check_calls(output)
    else:
        jsonschema.validate(json.loads(output.content), json.loads(ANSWER.schema))


@pytest.mark.parametrize("name", CALLING)
def test_a_model_that_knows_nothing_makes_the_calls_that_it_must(name: str) -> None:
    """It draws evenly from what the form allows. Now and then it goes on and on in a text."""
    tool_use = ToolUse(STRICT, is_required=True, is_parallel=False)
    form = form_of(name, "</think>", tool_use)
    outputs: list[Output] = []
    for seed in range(12):
        # The end token of the other vocabulary is a marker of gpt-oss, which ends no output of it.
        token_ids, is_over = walk(form, seed, kind="metaspace", max_tokens=600)
        if is_over:
            text = text_of(token_ids, "metaspace")
            outputs.append(output_of(name, "</think>", tool_use, text))
        if len(outputs) == 2:
            break
    assert outputs
    for output in outputs:
        assert len(output.calls) == 1
        assert not output.content
        check_calls(output)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_asked_anything_goes(name: str) -> None:
    assert by_name(name).form("", ToolUse(TOOLS), None) is None
    assert by_name(name).form("", ToolUse(), None) is None


def test_a_schema_is_held_to_in_full_where_a_tool_is_strict() -> None:
    tools = (Tool("a", "{}", True, "prompt.tools[0].parameters"), Tool("b", "[]"))
    form = form_of("hermes", "", ToolUse(tools, is_required=True))
    leaves = [each for each in nodes(form) if isinstance(each, Json)]
    assert [(each.schema, each.strict) for each in leaves] == [("{}", True), ("[]", False)]
    assert leaves[0].field == "prompt.tools[0].parameters"


def test_without_reasoning_an_answer_has_just_its_own_form() -> None:
    assert by_name("hermes").form("", ToolUse(), Regex("a+")) == Regex("a+")
