"""What a family's template writes of an answer is read back as that answer."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.names import NAMES
from services.worker.engines.base import ChatPrompt
from tests.chat_outputs import Output
from tests.chat_templates import END_TOKENS, chat_template

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "number": {"type": "integer"},
        "list": {"type": "array"},
        "object": {"type": "object"},
        "flag": {"type": "boolean"},
    },
}
TOOLS = tuple(Tool(name, json.dumps(SCHEMA)) for name in ("look_up", "add-2"))
TEMPLATE_TOOLS = [
    {"type": "function", "function": {"name": each.name, "description": "", "parameters": SCHEMA}}
    for each in TOOLS
]
QUESTION = {"role": "user", "content": "What?"}


class Ability(NamedTuple):
    """What a family's template can write in one answer."""

    chat_format: str
    reasons: bool = False
    calls: int = 3
    content_beside_calls: bool = True
    switch: str = "enable_thinking"


TEMPLATES = {
    "hermes": Ability("hermes"),
    "qwen3": Ability("qwen3", reasons=True),
    "qwen3_coder": Ability("qwen3-coder"),
    "llama3": Ability("llama3", calls=1, content_beside_calls=False),
    "pythonic": Ability("pythonic", content_beside_calls=False),
    "mistral": Ability("mistral", content_beside_calls=False),
    "mistral_v11": Ability("mistral-v11"),
    "magistral": Ability("magistral", reasons=True),
    "deepseek_v3": Ability("deepseek-v3"),
    "deepseek_r1": Ability("deepseek-r1", reasons=True),
    "deepseek_v31": Ability("deepseek-v3.1", reasons=True, switch="thinking"),
    "gpt_oss": Ability("gpt-oss", reasons=True, calls=1, content_beside_calls=False),
    "granite": Ability("granite"),
    "granite_untold": Ability("granite"),
    "phi4": Ability("phi4"),
    "chatml": Ability("generic"),
    "qwq": Ability("think"),
    "gemma": Ability("generic"),
    "llava": Ability("generic"),
}

# Whatever a marker begins with, and what JSON escapes.
_ALPHABET = st.sampled_from("ab<>[{}]|/\"'\\\n :;,`=é🙂")
TEXTS = st.text(_ALPHABET, min_size=1, max_size=20).map(str.strip).filter(bool)
VALUES = {
    "text": st.text(_ALPHABET, max_size=20),
    "number": st.integers(),
    "list": st.lists(st.one_of(st.integers(), st.text(_ALPHABET, max_size=5), st.none())),
    "object": st.dictionaries(
        st.text("abc{", max_size=3), st.floats(allow_nan=False, allow_infinity=False, width=16)
    ),
    "flag": st.booleans(),
}
ARGUMENTS = st.fixed_dictionaries({}, optional=VALUES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_tells_the_format(name: str) -> None:
    assert chat_template(name).chat_format.name == TEMPLATES[name].chat_format


def test_every_format_has_a_template() -> None:
    forced = {"plain", "qwen3.5"}
    assert {each.chat_format for each in TEMPLATES.values()} | forced == set(NAMES)


@pytest.mark.parametrize("name", TEMPLATES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_an_answer_is_read_back(name: str, data: st.DataObject) -> None:
    ability = TEMPLATES[name]
    calls = data.draw(
        st.lists(
            st.tuples(st.sampled_from([each.name for each in TOOLS]), ARGUMENTS),
            max_size=ability.calls,
        )
    )
    has_content = ability.content_beside_calls or not calls
    content = data.draw(TEXTS) if has_content else ""
    may_be_empty = st.just("") if name != "deepseek_r1" else st.nothing()
    reasoning = data.draw(st.one_of(may_be_empty, TEXTS)) if ability.reasons else ""
    answer = {
        "role": "assistant",
        "content": content,
        **({"reasoning_content": reasoning} if reasoning else {}),
        **({"tool_calls": [_call(at, *each) for at, each in enumerate(calls)]} if calls else {}),
    }
    arguments = {ability.switch: bool(reasoning)}
    if name in ("llama3", "pythonic") and not calls and content[0] in "{[":
        # An answer that begins like a call, and is none, is the subject of other tests.
        content = answer["content"] = f"a{content}"
    prompt = chat_template(name).render(
        ChatPrompt([QUESTION], tools=TEMPLATE_TOOLS, template_arguments=arguments)
    )
    whole = chat_template(name).render(
        ChatPrompt(
            [QUESTION, answer],
            tools=TEMPLATE_TOOLS,
            add_generation_prompt=False,
            template_arguments=arguments,
        )
    )
    written = _without_end(whole[_begin(prompt, whole) :])
    if name == "qwq":
        # Its template leaves out what it thought before.
        reasoning = data.draw(TEXTS)
        written = f"{reasoning}\n</think>\n\n{written}"
    output = Output().read(
        chat_template(name).chat_format.parser(prompt, ToolUse(TOOLS)), [written]
    )
    assert output.content == content
    assert output.reasoning == reasoning
    assert [(each, json.loads(text)) for each, text in output.calls] == calls


def _begin(prompt: str, whole: str) -> int:
    """Where the answer begins: a template leaves a line break after a role where none follows."""
    unthinking = prompt.removesuffix("<think>\n\n</think>\n\n")
    for end in (prompt, prompt.rstrip("\n"), unthinking, prompt.removesuffix("<think>\n")):
        if whole.startswith(end):
            return len(end)
    raise AssertionError((prompt, whole))


def _without_end(text: str) -> str:
    for end in END_TOKENS:
        if text.endswith(end):
            return text.removesuffix(end)
    return text


def _call(at: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"call_{at}_of_this_answer",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }
