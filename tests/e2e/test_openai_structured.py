"""Structured output through Envoy: outputs have the form that was asked for, or the request fails
by the name of its field. The demo model knows no JSON: what it writes is the form's doing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME

ASK: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


class City(BaseModel):
    size: Literal["small", "large"]
    name: Literal["Paris", "München 🙂"]
    is_capital: bool


class Answer(BaseModel):
    kind: Literal["city"]
    cities: tuple[City, City]


SCHEMA = City.model_json_schema() | {"additionalProperties": False}


@pytest.fixture
def client(demo_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo_mesh.base_url, api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: openai.OpenAI, **fields: Any) -> str:
    """The answer's text, which must have come to its end; streamed it is the same."""
    asked: dict[str, Any] = {
        "model": DEMO_MODEL_NAME,
        "messages": ASK,
        "max_tokens": 300,
        "temperature": 1.2,
        "seed": 5,
        **fields,
    }
    body = client.chat.completions.create(**asked)
    assert body.choices[0].finish_reason == "stop"
    text, finish = "", None
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == body.choices[0].message.content
    assert finish == "stop"
    return text


def test_a_pydantic_model_is_parsed(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=DEMO_MODEL_NAME,
        messages=ASK,
        response_format=Answer,
        max_tokens=400,
        temperature=1.0,
        seed=1,
    )
    message = parsed.choices[0].message
    assert isinstance(message.parsed, Answer)
    assert list(json.loads(message.content or "")["cities"][0]) == ["size", "name", "is_capital"]


def test_a_schema_by_each_of_its_names(client: openai.OpenAI) -> None:
    for fields in (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "c", "schema": SCHEMA},
            }
        },
        {"extra_body": {"guided_json": SCHEMA}},
        {"extra_body": {"structured_outputs": {"json": SCHEMA}}},
    ):
        jsonschema.validate(json.loads(ask(client, **fields)), SCHEMA)


def test_any_json_object(client: openai.OpenAI) -> None:
    # A model that knows no JSON seldom ends one by itself: the bias has it try.
    text = ask(
        client,
        response_format={"type": "json_object"},
        logit_bias={str(_token_of(client, "}")): 100},
    )
    assert isinstance(json.loads(text), dict)


def _token_of(client: openai.OpenAI, letter: str) -> int:
    root = str(client.base_url).removesuffix("/v1/")
    told = client._client.post(
        f"{root}/tokenize",
        json={"model": DEMO_MODEL_NAME, "prompt": letter, "add_special_tokens": False},
    ).json()
    return int(told["tokens"][0])


@pytest.mark.parametrize(
    ("name", "value", "pattern"),
    [
        ("regex", r"[A-C]{2}-\d{3}", r"[A-C]{2}-\d{3}"),
        ("choice", ["Paris", "São Paulo"], "Paris|São Paulo"),
        ("grammar", 'root ::= "a" b{1,2}\nb ::= "x" | [0-9]', r"a[x0-9]{1,2}"),
        ("grammar", '?start: "SELECT " COLUMN\nCOLUMN: "a" | "b"', "SELECT [ab]"),
    ],
)
def test_other_forms_by_both_of_their_names(
    client: openai.OpenAI, name: str, value: Any, pattern: str
) -> None:
    for fields in ({f"guided_{name}": value}, {"structured_outputs": {name: value}}):
        assert re.fullmatch(pattern, ask(client, extra_body=fields))


def test_completions_too(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=DEMO_MODEL_NAME,
        prompt="The capital is",
        max_tokens=100,
        n=2,
        extra_body={"guided_choice": ["Paris", "Rome"]},
    )
    assert {each.text for each in answer.choices} <= {"Paris", "Rome"}
    assert {each.finish_reason for each in answer.choices} == {"stop"}


def test_max_tokens_cuts_and_says_so(client: openai.OpenAI) -> None:
    body = client.chat.completions.create(
        model=DEMO_MODEL_NAME,
        messages=ASK,
        max_tokens=3,
        response_format={"type": "json_object"},
    )
    assert body.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"not": {}}, "strict": True},
                }
            },
            "response_format.json_schema.schema",
            "not",
        ),
        ({"guided_json": {"type": "odd"}}, "guided_json", "Invalid type: odd"),
        ({"guided_regex": "a("}, "guided_regex", "unclosed group"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar", "nothing"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex", "look-around"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "empty"),
    ],
)
def test_what_cannot_be_held_to_is_a_400_by_the_name_that_was_sent(
    client: openai.OpenAI, fields: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=DEMO_MODEL_NAME, messages=ASK, max_tokens=5, extra_body=fields
        )
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert said in str(refused.value)
