"""Tools, reasoning and schemas of /v1/responses through Envoy, by OpenAI's own Python SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.test_openai_tools import CALL, OTHER_CALL, SCHEMAS, THOUGHT

TOOLS: list[FunctionToolParam] = [
    {"type": "function", "name": name, "parameters": schema, "strict": False}
    for name, schema in SCHEMAS.items()
]
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])


@pytest.fixture
def writing(writing_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=writing_mesh.base_url, api_key="-", max_retries=0) as opened:
        yield opened


@pytest.fixture
def demo(demo_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo_mesh.base_url, api_key="-", max_retries=0) as opened:
        yield opened


def ask(client: openai.OpenAI, *, streamed: bool, **fields: Any) -> Response:
    """The response; of a stream, what the SDK itself puts together of it."""
    given: dict[str, Any] = {"model": SCRIPTED_MODEL, "tools": TOOLS, **fields}
    if not streamed:
        whole: Response = client.responses.create(**given)
        return whole
    with client.responses.stream(**given) as stream:
        stream.until_done()
        return stream.get_final_response()


def told(response: Response) -> list[Any]:
    """The kinds of items, each with its text."""
    found: list[Any] = []
    for item in response.output:
        if item.type == "reasoning":
            found.append(("reasoning", [part.text for part in item.content or ()]))
        elif item.type == "message":
            found.append(("message", [getattr(part, "text", None) for part in item.content]))
        elif item.type == "function_call":
            found.append((item.name, json.loads(item.arguments)))
    return found


@BOTH
def test_thoughts_text_and_calls_are_items_of_their_own(
    writing: openai.OpenAI, streamed: bool
) -> None:
    response = ask(writing, streamed=streamed, input=f"{THOUGHT}Sure.\n{CALL}\n{OTHER_CALL}")
    assert told(response) == [
        ("reasoning", ["The user wants 🌦."]),
        ("message", ["Sure."]),
        ("weather", {"city": "Oslo"}),
        ("add", {"a": 1, "b": [2, None]}),
    ]
    assert response.status == "completed"
    assert response.output_text == "Sure."
    calls = [item for item in response.output if item.type == "function_call"]
    assert all(call.id is not None and call.id.startswith("fc_") for call in calls)
    assert len({call.call_id for call in calls}) == 2
    assert response.usage is not None
    spent = response.usage.output_tokens_details.reasoning_tokens
    assert 0 < spent < response.usage.output_tokens


def test_thoughts_are_their_own_summary_where_one_is_asked_for(writing: openai.OpenAI) -> None:
    response = writing.responses.create(
        model=SCRIPTED_MODEL, input=f"{THOUGHT}Sure.", reasoning={"summary": "auto"}
    )
    reasoning = response.output[0]
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.summary] == ["The user wants 🌦."]


def test_the_arguments_of_a_call_come_in_pieces(writing: openai.OpenAI) -> None:
    events = list(
        writing.responses.create(model=SCRIPTED_MODEL, input=CALL, tools=TOOLS, stream=True)
    )
    pieces = [
        event.delta for event in events if event.type == "response.function_call_arguments.delta"
    ]
    assert len(pieces) > 1
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == done.arguments
    assert json.loads(done.arguments) == {"city": "Oslo"}


def test_a_forced_call_and_its_output_over_two_responses(demo: openai.OpenAI) -> None:
    first = ask(
        demo,
        streamed=True,
        model=DEMO_MODEL_NAME,
        input="What is the weather like?",
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        max_output_tokens=200,
        temperature=1.0,
        extra_body={"seed": 3},
    )
    assert first.status == "completed"
    (call,) = first.output
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), SCHEMAS["weather"])
    second = demo.responses.create(
        model=DEMO_MODEL_NAME,
        previous_response_id=first.id,
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "clear"}'}
        ],
        tools=TOOLS,
        max_output_tokens=16,
    )
    assert second.output
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


class Weather(BaseModel):
    """Looks at the sky."""

    city: Literal["Oslo", "Rome"]
    days: Literal[1, 2]


def test_the_sdks_own_parsing_of_text(demo: openai.OpenAI) -> None:
    parsed = demo.responses.parse(
        model=DEMO_MODEL_NAME,
        input="What is the weather like?",
        text_format=Weather,
        max_output_tokens=200,
        extra_body={"seed": 1},
    )
    assert isinstance(parsed.output_parsed, Weather)
    with demo.responses.stream(
        model=DEMO_MODEL_NAME,
        input="What is the weather like?",
        text_format=Weather,
        max_output_tokens=200,
        extra_body={"seed": 1},
    ) as stream:
        stream.until_done()
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_the_sdks_own_parsing_of_calls(demo: openai.OpenAI) -> None:
    parsed = demo.responses.parse(
        model=DEMO_MODEL_NAME,
        input="What is the weather like?",
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=200,
        extra_body={"seed": 1},
    )
    (call,) = [item for item in parsed.output if item.type == "function_call"]
    assert isinstance(call.parsed_arguments, Weather)
