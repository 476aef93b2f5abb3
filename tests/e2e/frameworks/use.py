"""Uses a mesh through the frameworks of requirements.txt: use.py BASE_URL MODEL.

Runs in their own environment, which knows nothing of TokenMesh. Prints the name of each use that
went well; the first that does not ends it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

import instructor
import litellm
import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

BASE_URL, MODEL = sys.argv[1:]
KEY = "unused"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
ASKED = [{"role": "user", "content": QUESTION}]
ENOUGH_TOKENS = 400


class City(BaseModel):
    """A city, of few values and no other fields: the demo model would write on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Paris", "Rome"]
    is_capital: bool


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather of a city."""
    return f"It is sunny in {city}."


def langchain_chat() -> None:
    model = ChatOpenAI(
        base_url=BASE_URL, api_key=KEY, model=MODEL, temperature=0, stream_usage=True
    )
    answer = model.invoke(QUESTION)
    assert ANSWER in answer.content
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    chunks = list(model.stream(QUESTION))
    assert "".join(chunk.content for chunk in chunks) == answer.content
    counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert counted[-1]["total_tokens"] == answer.usage_metadata["total_tokens"]
    batch = asyncio.run(model.abatch([QUESTION] * 3))
    assert {each.content for each in batch} == {answer.content}


def langchain_logprobs() -> None:
    model = ChatOpenAI(base_url=BASE_URL, api_key=KEY, model=MODEL, logprobs=True, top_logprobs=1)
    told = model.invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert all(entry["logprob"] <= 0 for entry in told)


def langchain_completion() -> None:
    model = OpenAI(base_url=BASE_URL, api_key=KEY, model=MODEL, max_tokens=5)
    assert model.invoke("The capital")


def langchain_structured() -> None:
    model = ChatOpenAI(
        base_url=BASE_URL, api_key=KEY, model=MODEL, max_tokens=ENOUGH_TOKENS, temperature=0
    )
    for method in ("json_schema", "function_calling"):
        structured = model.with_structured_output(City, method=method, strict=True)
        assert isinstance(structured.invoke(ANSWER), City)


def langchain_tools() -> None:
    model = ChatOpenAI(
        base_url=BASE_URL, api_key=KEY, model=MODEL, max_tokens=ENOUGH_TOKENS, temperature=0
    )
    forced = model.bind_tools(
        [weather], tool_choice="weather", parallel_tool_calls=False, strict=True
    )
    (call,) = forced.invoke("How is the weather in Paris?").tool_calls
    assert call["name"] == "weather"
    assert call["args"]["city"] in ("Paris", "Rome")
    assert "sunny" in weather.invoke(call).content


def instructor_structured() -> None:
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY), mode=mode)
        city = client.chat.completions.create(
            model=MODEL,
            response_model=City,
            messages=[{"role": "user", "content": ANSWER}],
            max_retries=0,
            max_tokens=ENOUGH_TOKENS,
            temperature=0,
        )
        assert isinstance(city, City)


def openai_parse() -> None:
    client = openai.OpenAI(base_url=BASE_URL, api_key=KEY)
    parsed = client.chat.completions.parse(
        model=MODEL,
        response_format=City,
        messages=ASKED,
        max_tokens=ENOUGH_TOKENS,
        temperature=0,
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def pydantic_ai() -> None:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=KEY))

    async def stream() -> str:
        async with Agent(model).run_stream(QUESTION) as answer:
            return await answer.get_output()

    assert ANSWER in Agent(model, model_settings={"temperature": 0}).run_sync(QUESTION).output
    assert asyncio.run(stream())
    settings = {"max_tokens": ENOUGH_TOKENS, "temperature": 0}
    agent = Agent(model, output_type=City, model_settings=settings)
    assert isinstance(agent.run_sync(ANSWER).output, City)


def litellm_calls() -> None:
    asked = {"api_base": BASE_URL, "api_key": KEY, "messages": ASKED, "temperature": 0}
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.completion(model=f"{provider}/{MODEL}", **asked)
        assert ANSWER in answer.choices[0].message.content
        assert answer.usage.total_tokens > 0
        chunks = litellm.completion(model=f"{provider}/{MODEL}", stream=True, **asked)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == answer.choices[0].message.content
    try:
        litellm.completion(model="openai/nobody", **asked)
    except litellm.NotFoundError:
        return
    raise AssertionError("a model that nobody serves answered")


USES = (
    *(langchain_chat, langchain_logprobs, langchain_completion, langchain_structured),
    *(langchain_tools, instructor_structured, openai_parse, pydantic_ai, litellm_calls),
)
if __name__ == "__main__":
    for use in USES:
        use()
        sys.stdout.write(f"{use.__name__}\n")
