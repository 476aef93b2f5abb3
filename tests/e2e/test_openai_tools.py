"""Tool calls and reasoning through Envoy, as OpenAI's own Python SDK reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME
from tests.e2e.conftest import SCRIPTED_MODEL

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
OTHER_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, null]}}\n</tool_call>'
THOUGHT = "<think>\nThe user wants 🌦.\n</think>\n\n"

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
ADD = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": WEATHER, "add": ADD}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
NAMED: Any = {"type": "function", "function": {"name": "add"}}


@pytest.fixture
def writing(writing_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=writing_mesh.base_url, api_key="-", max_retries=0) as opened:
        yield opened


@pytest.fixture
def demo(demo_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo_mesh.base_url, api_key="-", max_retries=0) as opened:
        yield opened


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def ask(client: openai.OpenAI, *, streamed: bool, **fields: Any) -> ChatCompletion:
    """The answer; of a stream, what the SDK itself puts together of it."""
    given: dict[str, Any] = {"model": SCRIPTED_MODEL, "tools": TOOLS, "seed": 3, **fields}
    if not streamed:
        whole: ChatCompletion = client.chat.completions.create(**given)
        return whole
    with client.chat.completions.stream(**given, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion()


def calls_of(answer: ChatCompletion, choice: int = 0) -> list[tuple[str, Any]]:
    message = answer.choices[choice].message
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in message.tool_calls or ()
        if call.type == "function"
    ]


BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])


@BOTH
def test_calls_text_and_reasoning_are_told_apart(writing: openai.OpenAI, streamed: bool) -> None:
    answer = ask(writing, streamed=streamed, messages=said(f"{THOUGHT}Sure.\n{CALL}\n{OTHER_CALL}"))
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Sure."
    assert choice.message.model_extra is not None
    assert choice.message.model_extra["reasoning_content"] == "The user wants 🌦."
    assert calls_of(answer) == [("weather", {"city": "Oslo"}), ("add", {"a": 1, "b": [2, None]})]
    ids = {call.id for call in choice.message.tool_calls or ()}
    assert len(ids) == 2
    assert all(each.startswith("call_") for each in ids)
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    spent = answer.usage.completion_tokens_details.reasoning_tokens
    assert spent is not None
    assert 0 < spent < answer.usage.completion_tokens


@BOTH
def test_an_answer_of_calls_alone_has_no_content(writing: openai.OpenAI, streamed: bool) -> None:
    answer = ask(writing, streamed=streamed, messages=said(CALL), n=2, logprobs=True)
    for choice in answer.choices:
        assert choice.message.content is None
        assert choice.finish_reason == "tool_calls"
        assert choice.logprobs is not None
        assert choice.logprobs.content
    first, second = (choice.message.tool_calls or [] for choice in answer.choices)
    assert first[0].id != second[0].id


@BOTH
@pytest.mark.parametrize("tool_choice", ["none", "auto"])
def test_a_choice_among_calls(
    writing: openai.OpenAI, streamed: bool, tool_choice: Literal["none", "auto"]
) -> None:
    answer = ask(
        writing,
        streamed=streamed,
        messages=said(f"a {CALL}{OTHER_CALL}"),
        tool_choice=tool_choice,
        parallel_tool_calls=False,
    )
    called = [] if tool_choice == "none" else [("weather", {"city": "Oslo"})]
    assert calls_of(answer) == called
    assert answer.choices[0].finish_reason == ("tool_calls" if called else "stop")


def test_a_stream_has_openais_order(writing: openai.OpenAI) -> None:
    chunks = writing.chat.completions.create(
        model=SCRIPTED_MODEL, messages=said(CALL), tools=TOOLS, stream=True
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    first, opening, *arguments, last = choices
    assert (first.delta.role, first.delta.content) == ("assistant", None)
    assert opening.delta.tool_calls is not None
    (call,) = opening.delta.tool_calls
    assert call.function is not None
    assert (call.index, call.type, call.function.name, call.function.arguments) == (
        *(0, "function", "weather", ""),
    )
    pieces = [each.delta.tool_calls[0] for each in arguments if each.delta.tool_calls]
    assert len(pieces) == len(arguments) > 1
    assert all(each.id is None and each.type is None for each in pieces)
    text = "".join(each.function.arguments or "" for each in pieces if each.function)
    assert json.loads(text) == {"city": "Oslo"}
    assert last.finish_reason == "tool_calls"


def test_half_a_call_is_no_content(writing: openai.OpenAI) -> None:
    for tokens in (1, 2, 3, 9, 20, 40):
        answer = ask(writing, streamed=False, messages=said(f"a{CALL}"), max_tokens=tokens)
        assert answer.choices[0].message.content == "a"
        assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("tool_choice", "parallel", "streamed"),
    [("required", False, True), (NAMED, False, False), ("required", True, False)],
    ids=["required", "named", "several"],
)
def test_a_forced_call_fits_its_schema_whatever_the_model(
    demo: openai.OpenAI, tool_choice: Any, parallel: bool, streamed: bool
) -> None:
    answer = ask(
        demo,
        streamed=streamed,
        model=DEMO_MODEL_NAME,
        messages=said("What is the weather like?"),
        tool_choice=tool_choice,
        parallel_tool_calls=parallel,
        temperature=1.0,
        max_tokens=150,
    )
    calls = calls_of(answer)
    assert calls
    assert parallel or len(calls) == 1
    for name, arguments in calls:
        assert tool_choice == "required" or name == "add"
        jsonschema.validate(arguments, SCHEMAS[name])
    assert not answer.choices[0].message.content
    # As OpenAI has it: a named function's call ends the answer as any other text would.
    ended = {"length"} if parallel else set()
    ended.add("tool_calls" if tool_choice == "required" else "stop")
    assert answer.choices[0].finish_reason in ended


@pytest.mark.parametrize("tool_choice", ["auto", "none"])
def test_a_model_that_calls_nothing_answers(demo: openai.OpenAI, tool_choice: str) -> None:
    answer = ask(
        demo,
        streamed=False,
        model=DEMO_MODEL_NAME,
        messages=said("What is the capital of France?"),
        tool_choice=tool_choice,
        temperature=0,
        max_tokens=64,
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_round_trip_with_a_tool(demo: openai.OpenAI) -> None:
    messages = said("What is the weather like?")
    first = ask(
        demo,
        streamed=True,
        model=DEMO_MODEL_NAME,
        messages=messages,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    ).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls or []
    messages += [
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "clear"}'},
    ]
    second = ask(
        demo, streamed=False, model=DEMO_MODEL_NAME, messages=messages, max_tokens=32
    ).choices[0]
    assert second.message.role == "assistant"
    assert second.finish_reason in {"stop", "length", "tool_calls"}


class Weather(BaseModel):
    """Looks at the sky."""

    city: Literal["Oslo", "Rome"]
    days: int


def test_the_sdks_own_parsing(demo: openai.OpenAI) -> None:
    parsed = demo.chat.completions.parse(
        model=DEMO_MODEL_NAME,
        messages=said("What is the weather like?"),
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        seed=1,
    )
    (call,) = parsed.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


def test_what_cannot_be_is_named(writing: openai.OpenAI) -> None:
    for tool_choice in ("required", NAMED):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(writing, streamed=False, messages=said("a"), tool_choice=tool_choice)
        assert refused.value.param == "tool_choice"
    unknown = {"type": "function", "function": {"name": "nothing"}}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(writing, streamed=False, messages=said("a"), tool_choice=unknown)
    assert refused.value.param == "tool_choice.function.name"
