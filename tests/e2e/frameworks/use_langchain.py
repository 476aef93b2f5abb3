"""Uses a mesh through langchain-openai."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add

from asked import ANSWER, BASE_URL, CITIES, ENOUGH_TOKENS, KEY, MODEL, QUESTION, City, CityName, run
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI


@tool
def weather(city: CityName) -> str:
    """The weather of a city."""
    return f"It is sunny in {city}."


def model(**options: object) -> ChatOpenAI:
    settings = {"temperature": 0, "max_tokens": ENOUGH_TOKENS, "max_retries": 0, **options}
    return ChatOpenAI(base_url=BASE_URL, api_key=KEY, model=MODEL, **settings)


def chat_and_stream() -> None:
    chat = model(stream_usage=True)
    answer = chat.invoke(QUESTION)
    assert ANSWER in answer.content
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    streamed = reduce(add, chat.stream(QUESTION))
    assert streamed.content == answer.content
    assert streamed.usage_metadata["total_tokens"] == answer.usage_metadata["total_tokens"]
    batch = asyncio.run(chat.abatch([QUESTION] * 3))
    assert {each.content for each in batch} == {answer.content}


def responses() -> None:
    assert ANSWER in model(use_responses_api=True).invoke(QUESTION).text


def logprobs() -> None:
    answer = model(logprobs=True, top_logprobs=1).invoke(QUESTION)
    told = answer.response_metadata["logprobs"]["content"]
    assert told
    assert all(entry["logprob"] <= 0 for entry in told)


def completion() -> None:
    completions = OpenAI(base_url=BASE_URL, api_key=KEY, model=MODEL, max_tokens=5)
    assert completions.invoke("The capital")


def structured() -> None:
    for method in ("json_schema", "function_calling"):
        output = model().with_structured_output(City, method=method, strict=True)
        assert isinstance(output.invoke(ANSWER), City)


def tool_call() -> None:
    forced = model().bind_tools(
        [weather], tool_choice="weather", parallel_tool_calls=False, strict=True
    )
    question = "How is the weather in Paris?"
    for answer in (forced.invoke(question), reduce(add, forced.stream(question))):
        (call,) = answer.tool_calls
        assert call["name"] == "weather"
        assert call["args"]["city"] in CITIES
        assert "sunny" in weather.invoke(call).content


run(chat_and_stream, responses, logprobs, completion, structured, tool_call)
