"""Uses a mesh through Instructor."""

from __future__ import annotations

import instructor
import openai
from asked import BASE_URL, ENOUGH_TOKENS, KEY, MESSAGES, MODEL, City, run

WANTED = {
    "model": MODEL,
    "messages": MESSAGES,
    "max_retries": 0,
    "max_tokens": ENOUGH_TOKENS,
    "temperature": 0,
}


def client(mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY), mode=mode)


def structured() -> None:
    city = client(instructor.Mode.JSON_SCHEMA).create(response_model=City, **WANTED)
    assert isinstance(city, City)


def tool_call() -> None:
    city, answer = client(instructor.Mode.TOOLS).create_with_completion(
        response_model=City, **WANTED
    )
    assert isinstance(city, City)
    (call,) = answer.choices[0].message.tool_calls
    assert City.model_validate_json(call.function.arguments).model_dump() == city.model_dump()


def stream() -> None:
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        *_, last = client(mode).create_partial(response_model=City, **WANTED)
        assert City.model_validate(last.model_dump())


def chat() -> None:
    answer = client(instructor.Mode.TOOLS).create(response_model=None, **WANTED)
    assert "Paris" in answer.choices[0].message.content


run(chat, structured, tool_call, stream)
