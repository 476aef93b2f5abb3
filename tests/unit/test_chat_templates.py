"""Conversations in the form that each template takes."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.errors import UnsupportedError
from services.worker.engines.base import ChatPrompt
from tests.chat_templates import NAMES, chat_template, source

HELLO = {"role": "user", "content": "Hello!"}
BRIEF = {"role": "system", "content": "Be brief."}
KIND = {"role": "developer", "content": "Be kind."}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Finds a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLS: list[dict[str, Any]] = [
    {
        "id": f"call_{number}_with_a_long_id",
        "type": "function",
        "function": {"name": name, "arguments": '{"city": "Oslo"}'},
    }
    for number, name in enumerate(("look_up", "weather"))
]
RESULTS: list[dict[str, Any]] = [
    {"role": "tool", "tool_call_id": call["id"], "content": f"result {number}"}
    for number, call in enumerate(CALLS)
]
CALLED: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": CALLS}
WHOLE: list[dict[str, Any]] = [
    HELLO,
    CALLED,
    *RESULTS,
    {"role": "assistant", "content": "So."},
    HELLO,
]


def render(name: str, *messages: dict[str, Any], **more: Any) -> str:
    return chat_template(name).render(ChatPrompt(messages, **more))


@pytest.mark.parametrize("name", NAMES)
def test_every_template_takes_tools_calls_and_results(name: str) -> None:
    text = render(name, BRIEF, *WHOLE, tools=[TOOL])
    for word in ("Be brief.", "look_up", "weather", "Oslo", "result 0", "result 1", "So."):
        assert word in text
    assert text.index("weather") > text.index("look_up")
    assert text.index("result 1") > text.index("result 0")


@pytest.mark.parametrize("name", NAMES)
def test_every_template_takes_developers(name: str) -> None:
    text = render(name, KIND, BRIEF, HELLO)
    assert "Be kind." in text
    assert ("developer" in text) == ("developer" in source(name))


def test_a_developer_and_the_system_speak_as_one() -> None:
    assert render("qwen3", BRIEF, KIND, HELLO, add_generation_prompt=False) == (
        "<|im_start|>system\nBe brief.\n\nBe kind.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n"
    )


def test_a_system_that_is_not_known_speaks_through_the_user() -> None:
    text = render("gemma", BRIEF, HELLO, {"role": "assistant", "content": "Hi."}, BRIEF)
    assert text == (
        "<s><start_of_turn>user\nBe brief.\n\nHello!<end_of_turn>\n<start_of_turn>model\nHi."
        "<end_of_turn>\n<start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>model\n"
    )


def test_calls_and_results_as_text_keep_the_turns() -> None:
    text = render("gemma", HELLO, CALLED, *RESULTS, HELLO, add_generation_prompt=False)
    assert text == (
        "<s><start_of_turn>user\nHello!<end_of_turn>\n<start_of_turn>model\n"
        '<tool_call>\n{"name": "look_up", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
        "<end_of_turn>\n<start_of_turn>user\n<tool_response>\nresult 0\n</tool_response>\n"
        "<tool_response>\nresult 1\n</tool_response>\nHello!<end_of_turn>\n"
    )


def test_tools_are_described_behind_what_the_system_says() -> None:
    text = render("chatml", BRIEF, HELLO, tools=[TOOL])
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert '{"name": "look_up", "description": "Finds a city.", "parameters": ' in text


def test_templates_that_know_tools_describe_them_themselves() -> None:
    assert "# Tools" not in render("mistral", HELLO, tools=[TOOL])
    assert render("hermes", HELLO, tools=[TOOL]).count('"name": "look_up"') == 1


def test_calls_that_come_one_at_a_time_have_their_results_behind_them() -> None:
    text = render("llama3", HELLO, CALLED, *reversed(RESULTS))
    places = [text.index(word) for word in ("look_up", "result 0", "weather", "result 1")]
    assert places == sorted(places)


def test_ids_are_as_short_as_a_template_wants_them() -> None:
    text = render("mistral", HELLO, CALLED, *RESULTS, tools=[TOOL])
    ids = [part[:9] for part in text.split('"id": "')[1:]]
    answered = [part[:9] for part in text.split('"call_id": "')[1:]]
    assert len(set(ids)) == 2
    assert ids == answered
    assert all(each.isalnum() for each in ids)


def test_arguments_are_text_where_a_template_takes_no_object() -> None:
    assert '\n{"city": "Oslo"}\n```' in render("deepseek_v3", HELLO, CALLED, *RESULTS)


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    call = {**CALLS[0], "function": {"name": "look_up", "arguments": "{city"}}
    called = {**CALLED, "tool_calls": [call]}
    assert '"arguments": "{city"}' in render("hermes", HELLO, called, RESULTS[0])


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1", "deepseek_v31", "gpt_oss", "magistral"])
def test_what_was_thought_before_reaches_templates_that_take_it(name: str) -> None:
    thought = {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}
    assert "Hm." in render(name, HELLO, thought, HELLO)


def test_what_was_said_before_a_call_joins_the_thoughts_where_a_template_takes_one_of_both() -> (
    None
):
    called = {**CALLED, "content": "I look.", "reasoning_content": "Hm."}
    text = render("gpt_oss", HELLO, called, *RESULTS)
    assert "<|channel|>analysis<|message|>Hm.\n\nI look.<|end|>" in text


def test_earlier_calls_are_written_as_the_model_writes_them() -> None:
    text = render("granite_untold", HELLO, CALLED, *RESULTS, tools=[TOOL])
    assert '<|tool_call|>[{"name": "look_up", "arguments": {"city": "Oslo"}}, {"name": "w' in text


@pytest.mark.parametrize(
    ("name", "effort", "end"),
    [
        ("qwen3", "none", "<think>\n\n</think>\n\n"),
        ("qwen3", "low", "assistant\n"),
        ("deepseek_v31", "none", "</think>"),
        ("deepseek_v31", "high", "<think>"),
    ],
)
def test_how_much_to_reason_says_whether_to(name: str, effort: str, end: str) -> None:
    assert render(name, HELLO, template_arguments={"reasoning_effort": effort}).endswith(end)


def test_what_a_request_says_itself_goes_first() -> None:
    arguments = {"reasoning_effort": "none", "enable_thinking": True}
    assert render("qwen3", HELLO, template_arguments=arguments).endswith("assistant\n")


def test_the_effort_reaches_templates_that_name_it() -> None:
    text = render("gpt_oss", HELLO, template_arguments={"reasoning_effort": "low"})
    assert "Reasoning: low" in text


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_text_are_text(name: str) -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]
    assert "Hello\nthere" in render(name, {"role": "user", "content": parts})


def test_what_is_no_text_is_refused() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x"}}
    with pytest.raises(UnsupportedError, match="not a part of type 'image_url'") as refused:
        render("hermes", HELLO, {"role": "user", "content": [picture]})
    assert refused.value.field == "prompt.messages[1].content"


def test_a_named_format_needs_a_place_for_tools() -> None:
    template = chat_template("chatml", "hermes")
    with pytest.raises(UnsupportedError, match="--chat-format generic"):
        template.render(ChatPrompt([HELLO], tools=[TOOL]))
