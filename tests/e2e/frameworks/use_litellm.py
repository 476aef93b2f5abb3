"""Uses a mesh through LiteLLM."""

from __future__ import annotations

import asyncio
import json

import litellm
from asked import ANSWER, BASE_URL, CITIES, ENOUGH_TOKENS, KEY, MESSAGES, MODEL, City, run

PROVIDERS = ("openai", "hosted_vllm")
SETTINGS = {
    "api_base": BASE_URL,
    "api_key": KEY,
    "messages": MESSAGES,
    "temperature": 0,
    "max_tokens": ENOUGH_TOKENS,
    "num_retries": 0,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": CITIES}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


async def chat_and_stream_of_each_provider() -> None:
    for provider in PROVIDERS:
        asked = {"model": f"{provider}/{MODEL}", **SETTINGS}
        answer = litellm.completion(**asked)
        assert ANSWER in answer.choices[0].message.content
        assert answer.usage.total_tokens > 0
        chunks = litellm.completion(stream=True, **asked)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == answer.choices[0].message.content
        awaited = await litellm.acompletion(**asked)
        assert awaited.choices[0].message.content == text


def chat_and_stream() -> None:
    asyncio.run(chat_and_stream_of_each_provider())


def tool_call() -> None:
    chosen = {"type": "function", "function": {"name": "weather"}}
    for provider in PROVIDERS:
        asked = {"model": f"{provider}/{MODEL}", "tools": [WEATHER], "tool_choice": chosen}
        whole = litellm.completion(**asked, **SETTINGS)
        chunks = list(litellm.completion(stream=True, **asked, **SETTINGS))
        for answer in (whole, litellm.stream_chunk_builder(chunks)):
            (call,) = answer.choices[0].message.tool_calls
            assert call.function.name == "weather"
            assert json.loads(call.function.arguments)["city"] in CITIES


def structured() -> None:
    for provider in PROVIDERS:
        model = f"{provider}/{MODEL}"
        answer = litellm.completion(model=model, response_format=City, **SETTINGS)
        assert City.model_validate_json(answer.choices[0].message.content)


def unknown_model() -> None:
    try:
        litellm.completion(model="openai/nobody", **SETTINGS)
    except litellm.NotFoundError:
        return
    raise AssertionError("a model that nobody serves answered")


run(chat_and_stream, tool_call, structured, unknown_model)
