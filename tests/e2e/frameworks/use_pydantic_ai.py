"""Uses a mesh through Pydantic AI."""

from __future__ import annotations

import asyncio

from asked import ANSWER, BASE_URL, CITIES, ENOUGH_TOKENS, KEY, MODEL, QUESTION, City, CityName, run
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=BASE_URL, api_key=KEY)
model = OpenAIChatModel(MODEL, provider=provider)
SETTINGS = {"max_tokens": ENOUGH_TOKENS, "temperature": 0}


def weather(city: CityName) -> str:
    """The weather of a city."""
    return f"It is sunny in {city}."


def chat() -> None:
    for each in (model, OpenAIResponsesModel(MODEL, provider=provider)):
        answer = Agent(each, model_settings=SETTINGS).run_sync(QUESTION)
        assert ANSWER in answer.output
        assert answer.usage.output_tokens > 0


def stream() -> None:
    async def pieces() -> str:
        async with Agent(model, model_settings=SETTINGS).run_stream(QUESTION) as answer:
            return "".join([piece async for piece in answer.stream_text(delta=True)])

    assert ANSWER in asyncio.run(pieces())


def tool_call() -> None:
    # As the output it is forced, and what it returns ends the run.
    answer = Agent(model, output_type=weather, model_settings=SETTINGS).run_sync(QUESTION)
    assert answer.output in [f"It is sunny in {city}." for city in CITIES]


def structured() -> None:
    for output in (ToolOutput(City), NativeOutput(City)):
        agent = Agent(model, output_type=output, model_settings=SETTINGS)
        assert isinstance(agent.run_sync(QUESTION).output, City)


run(chat, stream, tool_call, structured)
