"""Outputs of every family, read as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.chat_formats.base import Tool, ToolCallArguments, ToolUse
from services.worker.chat_formats.names import NAMES, by_name
from tests.chat_outputs import Output

TOOLS = ToolUse((Tool("look_up", ""), Tool("add", "")))


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


OSLO = '{"city": "Oslo"}'
DEEPSEEK_V3_CALL = (
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n"
    + OSLO
    + "\n```<｜tool▁call▁end｜>"
)
TYPED = ToolUse(
    (
        Tool(
            "look_up",
            '{"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": '
            '"integer"}, "where": {"type": ["string", "null"]}, "any": {}}}',
        ),
    )
)

TRANSCRIPTS = {
    "plain": Transcript("plain", "<think>Hm</think>", content="<think>Hm</think>"),
    "hermes, two calls": Transcript(
        "hermes",
        "Let me see.\n<tool_call>"
        '\n{"name": "look_up", "arguments": {"city": "Oslo", "t": "</tool_call>\\""}}\n'
        '</tool_call>\n<tool_call>\n{"name": "add"}\n</tool_call>',
        content="Let me see.",
        calls=[("look_up", '{"city": "Oslo", "t": "</tool_call>\\""}'), ("add", "{}")],
    ),
    "hermes, content around calls": Transcript(
        "hermes",
        'A\n<tool_call>\n{"name": "add", "arguments": null}\n</tool_call>\nB <tool_call>'
        '{"arguments": {"x": [1, {"y": 2}]}, "name": "add"}</tool_call>',
        content="A\nB",
        calls=[("add", "{}"), ("add", '{"x": [1, {"y": 2}]}')],
    ),
    "hermes, an unknown tool": Transcript(
        "hermes",
        'A\n<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>',
        content='A\n<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>',
    ),
    "hermes, no JSON": Transcript(
        "hermes", "<tool_call> look_up(1)", content="<tool_call> look_up(1)"
    ),
    "hermes, no name": Transcript(
        "hermes", '<tool_call>{"arguments": {}}', content='<tool_call>{"arguments": {}}'
    ),
    "hermes, a marker in what is no call": Transcript(
        "hermes",
        '<tool_call>\n<tool_call>\n{"name": "add"}\n</tool_call>',
        content="<tool_call>",
        calls=[("add", "{}")],
    ),
    "hermes, broken arguments": Transcript(
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, </tool_call>\nB',
        content="B",
        calls=[("add", '{"a": 1, ')],
    ),
    "hermes, a brace too few, one too many": Transcript(
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}}\n</tool_call>',
        calls=[("add", '{"a": 1}'), ("add", '{"a": 2}')],
    ),
    "hermes, arguments as a string, one object deeper": Transcript(
        "hermes",
        r'<tool_call>{"type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}'
        "</tool_call>",
        calls=[("add", '{"a": 1}')],
    ),
    "hermes, two calls between two tags": Transcript(
        "hermes",
        '<tool_call>\n{"name": "add"}\n{"name": "look_up"}\n</tool_call>',
        calls=[("add", "{}"), ("look_up", "{}")],
    ),
    "hermes, one call allowed": Transcript(
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>\nB',
        content="B",
        calls=[("add", '{"a": 1}')],
        tool_use=ToolUse(TOOLS.tools, is_parallel=False),
    ),
    "hermes, without tools": Transcript(
        "hermes",
        ' <tool_call>\n{"name": "add"}\n</tool_call> ',
        content=' <tool_call>\n{"name": "add"}\n</tool_call> ',
        tool_use=ToolUse(),
    ),
    "qwen3, reasoning": Transcript(
        "qwen3",
        "<think>\nWell,\n\nlet's see.\n</think>\n\nHello <there> ",
        reasoning="Well,\n\nlet's see.",
        content="Hello <there> ",
    ),
    "qwen3, reasoning and a call": Transcript(
        "qwen3",
        '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "look_up", "arguments": '
        + OSLO
        + "}\n</tool_call>",
        reasoning="Hm.",
        calls=[("look_up", OSLO)],
    ),
    "qwen3, no reasoning": Transcript("qwen3", " Hi <think>", content=" Hi <think>"),
    "qwen3, reasoning closed by the prompt": Transcript(
        "qwen3", "\nHi", content="Hi", prompt_end="assistant\n<think>\n\n</think>\n\n"
    ),
    "think, what is left at the end": Transcript(
        "think", "<\n</think>\n <", reasoning="<", content="<", prompt_end="<think>\n"
    ),
    "think, half a marker that the model means": Transcript(
        "think", " </th", reasoning="</th", prompt_end="<think>\n"
    ),
    "think, opened by the prompt": Transcript(
        "think", "Hm.\n</think>\n\nHi", reasoning="Hm.", content="Hi", prompt_end="<think>\n"
    ),
    "qwen3-coder": Transcript(
        "qwen3-coder",
        'Sure.\n\n<tool_call>\n<function=look_up>\n<parameter=city>\nNew\n"York"\n</parameter>\n'
        "<parameter=days>\n3\n</parameter>\n<parameter=where>\nnull\n</parameter>\n"
        "<parameter=any>\n[1, True]\n</parameter>\n</function>\n</tool_call>",
        content="Sure.",
        calls=[
            (
                "look_up",
                '{"city": "New\\n\\"York\\"", "days": 3, "where": null, "any": "[1, True]"}',
            )
        ],
        tool_use=TYPED,
    ),
    "qwen3-coder, without the outer tag": Transcript(
        "qwen3-coder",
        "<function=add>\n</function>\n</tool_call>",
        calls=[("add", "{}")],
    ),
    "qwen3-coder, broken": Transcript(
        "qwen3-coder",
        "<tool_call><function=add>\nwhat?</function></tool_call>B",
        content="B",
        calls=[("add", "{}")],
    ),
    "llama3, a call": Transcript(
        "llama3",
        '{"name": "look_up", "parameters": ' + OSLO + "}",
        calls=[("look_up", OSLO)],
    ),
    "llama3, two calls behind a tag": Transcript(
        "llama3",
        '<|python_tag|>{"type": "function", "name": "look_up", "parameters": '
        + OSLO
        + '}; {"name": "add", "parameters": {}}',
        calls=[("look_up", OSLO), ("add", "{}")],
    ),
    "llama3, text": Transcript("llama3", 'See {"name": "add"}', content='See {"name": "add"}'),
    "llama3, an answer in JSON": Transcript(
        "llama3", '\n{"town": "Oslo", "name": "add"}', content='\n{"town": "Oslo", "name": "add"}'
    ),
    "llama3, code": Transcript("llama3", "<|python_tag|>print(1)", content="print(1)"),
    "pythonic": Transcript(
        "pythonic",
        """[look_up(city="New \\"York\\"", near='it\\'s\\u00e9"', days = 3, """
        """some=[1, (True, None),], more={'a': {}, "b": -1.5}), add()]""",
        calls=[
            (
                "look_up",
                '{"city": "New \\"York\\"", "near": "it\'sé\\"", "days": 3, "some": [1, [true, '
                'null]], "more": {"a": {}, "b": -1.5}}',
            ),
            ("add", "{}"),
        ],
    ),
    "pythonic, between tokens": Transcript(
        "pythonic",
        "Well.<|python_start|>[add(a=1)]<|python_end|> B",
        content="Well. B",
        calls=[("add", '{"a": 1}')],
    ),
    "pythonic, text": Transcript("pythonic", "[nope(1)] or [1]", content="[nope(1)] or [1]"),
    "pythonic, broken": Transcript(
        "pythonic",
        "[add(a=b)]<|python_end|>B",
        content="B",
        calls=[("add", '{"a": ')],
    ),
    "mistral": Transcript(
        "mistral",
        'Well[TOOL_CALLS] [{"name": "look_up", "arguments": '
        + OSLO
        + ', "id": "abcdefghi"}, {"name": "add", "arguments": {}}]',
        content="Well",
        calls=[("look_up", OSLO), ("add", "{}")],
    ),
    "mistral-v11": Transcript(
        "mistral-v11",
        "[TOOL_CALLS]look_up[CALL_ID]abcDEF123[ARGS]" + OSLO + "[TOOL_CALLS]add[ARGS]{}",
        calls=[("look_up", OSLO), ("add", "{}")],
    ),
    "mistral-v11, broken": Transcript(
        "mistral-v11",
        "[TOOL_CALLS]look_up[ARGS]x [TOOL_CALLS]add{}",
        calls=[("look_up", ""), ("add", "{}")],
    ),
    "mistral-v11, an unknown tool": Transcript(
        "mistral-v11", "[TOOL_CALLS]nope[ARGS]{}", content="[TOOL_CALLS]nope[ARGS]{}"
    ),
    "magistral": Transcript(
        "magistral",
        "[THINK]Hm.[/THINK]Hi[TOOL_CALLS]add[ARGS]{}",
        reasoning="Hm.",
        content="Hi",
        calls=[("add", "{}")],
    ),
    "deepseek-v3": Transcript(
        "deepseek-v3",
        f"Hi<｜tool▁calls▁begin｜>{DEEPSEEK_V3_CALL}\n{DEEPSEEK_V3_CALL}<｜tool▁calls▁end｜>",
        content="Hi",
        calls=[("look_up", OSLO), ("look_up", OSLO)],
    ),
    "deepseek-r1": Transcript(
        "deepseek-r1",
        f"Hm\n</think>\n\n<｜tool▁calls▁begin｜>{DEEPSEEK_V3_CALL}<｜tool▁calls▁end｜>",
        reasoning="Hm",
        calls=[("look_up", OSLO)],
        prompt_end="<｜Assistant｜><think>\n",
    ),
    "deepseek-v3.1": Transcript(
        "deepseek-v3.1",
        "Hi<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>"
        + OSLO
        + "<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        content="Hi",
        calls=[("look_up", OSLO), ("add", "{}")],
        prompt_end="<｜Assistant｜></think>",
    ),
    "deepseek-v3.1, an unknown tool": Transcript(
        "deepseek-v3.1",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>nope<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
        content="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>nope<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    ),
    "gpt-oss, an answer": Transcript(
        "gpt-oss",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi ",
        reasoning="Hm.",
        content="Hi ",
        prompt_end="<|start|>assistant",
    ),
    "gpt-oss, a preamble and a call": Transcript(
        "gpt-oss",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>analysis<|message|>"
        "So.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>"
        "assistant<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>"
        + OSLO
        + "<|call|>",
        reasoning="Hm.\n\nSo.",
        content="I look.",
        calls=[("look_up", OSLO)],
        prompt_end="<|start|>assistant",
    ),
    "gpt-oss, the tool before the channel": Transcript(
        "gpt-oss",
        " to=functions.add<|channel|>commentary json<|message|>",
        calls=[("add", "")],
        prompt_end="<|start|>assistant",
    ),
    "gpt-oss, no tool": Transcript(
        "gpt-oss",
        "<|channel|>commentary to=functions.nope json<|message|>{}<|end|>",
        content="{}",
        prompt_end="<|start|>assistant",
    ),
    "gpt-oss, within a message": Transcript(
        "gpt-oss",
        "ere<|end|><|start|>assistant<|channel|>final<|message|>Hi",
        reasoning="ere",
        content="Hi",
        prompt_end="<|start|>assistant<|channel|>analysis<|message|>Th",
    ),
    "gpt-oss, no channel": Transcript("gpt-oss", "Hi there", content="Hi there"),
    "granite": Transcript(
        "granite",
        'A<|tool_call|>[{"name": "look_up", "arguments": ' + OSLO + '}, {"name": "add"}]',
        content="A",
        calls=[("look_up", OSLO), ("add", "{}")],
    ),
    "granite, an unknown tool after a call": Transcript(
        "granite",
        '<|tool_call|>[{"name": "add"}, {"name": "nope"}]',
        content='{"name": "nope"}]',
        calls=[("add", "{}")],
    ),
    "phi4": Transcript(
        "phi4",
        '<|tool_call|>[{"name": "add"}]<|/tool_call|><|tool_call|>{"name": "add"}<|/tool_call|>',
        calls=[("add", "{}"), ("add", "{}")],
    ),
    "generic": Transcript(
        "generic",
        'Hi\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>',
        content="Hi",
        calls=[("add", "{}")],
    ),
}


def read(transcript: Transcript, pieces: Iterable[str], *, is_cut: bool = False) -> Output:
    parser = by_name(transcript.chat_format).parser(transcript.prompt_end, transcript.tool_use)
    return Output().read(parser, pieces, is_cut=is_cut)


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


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_wherever_an_output_ends_it_shows_no_half_of_a_call(transcript: Transcript) -> None:
    whole = read(transcript, [transcript.text])
    for end in range(len(transcript.text)):
        cut = read(transcript, [transcript.text[:end]], is_cut=True)
        # Space at the end may be text, or stand before a marker that has not come.
        assert whole.content.startswith(cut.content.rstrip())
        assert whole.reasoning.startswith(cut.reasoning.rstrip())
        for (name, arguments), (whole_name, whole_arguments) in zip(
            cut.calls, whole.calls, strict=False
        ):
            assert name == whole_name
            assert whole_arguments.startswith(arguments)
        assert len(cut.calls) <= len(whole.calls)


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_what_has_been_emitted_follows_from_what_was_fed(transcript: Transcript) -> None:
    assert_all_follows_from_what_was_fed(transcript, transcript.text)


def assert_all_follows_from_what_was_fed(transcript: Transcript, pieces: Iterable[str]) -> None:
    """At every moment a parser is where one is that got all of it at once."""
    parser = by_name(transcript.chat_format).parser(transcript.prompt_end, transcript.tool_use)
    emitted = Output()
    fed = ""
    for piece in pieces:
        emitted.take(parser.feed(piece))
        fed += piece
        at_once = by_name(transcript.chat_format).parser(transcript.prompt_end, transcript.tool_use)
        assert Output().take(at_once.feed(fed)) == emitted
        assert at_once.is_reasoning == parser.is_reasoning


@pytest.mark.parametrize(
    "name",
    [
        *("hermes, two calls", "qwen3, reasoning and a call", "qwen3-coder", "llama3, a call"),
        *("mistral", "mistral-v11", "deepseek-v3", "deepseek-r1", "deepseek-v3.1", "granite"),
        "gpt-oss, a preamble and a call",
        "pythonic",
    ],
)
def test_arguments_come_as_they_are_written(name: str) -> None:
    transcript = TRANSCRIPTS[name]
    parser = by_name(transcript.chat_format).parser(transcript.prompt_end, transcript.tool_use)
    deltas = [delta for character in transcript.text for delta in parser.feed(character)]
    pieces = [delta.text for delta in deltas if isinstance(delta, ToolCallArguments)]
    assert max(map(len, pieces)) < len("a whole argument")
    assert len(pieces) > len('{"city": "Oslo')


@given(
    st.sampled_from(NAMES),
    st.lists(
        st.sampled_from(
            [
                *("<tool_call>", "</tool_call>", "<think>", "</think>", "<function=", "add>"),
                *("<parameter=", "a>", "</parameter>", "</function>", "<|python_tag|>", ";", "{"),
                *('"name": "add"', '"arguments": ', ", ", "}", "[", "]", '"', "\\", "\n", " ", "x"),
                *("[TOOL_CALLS]", "add", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "```json"),
                *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "function"),
                *("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<|tool_call|>", "<|/tool_call|>"),
                *("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "analysis"),
                *("commentary to=functions.add ", "final", "<|constrain|>", "1", "null", "<", "|"),
                *(
                    "add(",
                    "a=",
                    "'",
                    ")",
                    "<|python_start|>",
                    "<|python_end|>",
                    "True",
                    ":",
                    "\\u00",
                ),
            ]
        ),
        max_size=12,
    ),
    st.booleans(),
    st.booleans(),
    st.data(),
)
@settings(max_examples=300)
def test_nothing_that_a_model_writes_is_too_odd(
    name: str, parts: list[str], is_parallel: bool, is_cut: bool, data: st.DataObject
) -> None:
    text = "".join(parts)
    transcript = Transcript(name, text, tool_use=ToolUse(TOOLS.tools, is_parallel=is_parallel))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(transcript, [text], is_cut=is_cut)
    assert read(transcript, pieces, is_cut=is_cut) == whole
    assert_all_follows_from_what_was_fed(transcript, pieces)
    assert is_parallel or len(whole.calls) <= 1
    assert {call[0] for call in whole.calls} <= {"add", "look_up"}
