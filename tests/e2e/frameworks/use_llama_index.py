"""Uses a mesh through LlamaIndex.

Annotations are not postponed here: LlamaIndex makes a tool's schema from what they are, not from
their text.
"""

import asyncio

from asked import ANSWER, BASE_URL, CITIES, ENOUGH_TOKENS, KEY, MODEL, QUESTION, City, CityName, run
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    api_base=BASE_URL,
    api_key=KEY,
    model=MODEL,
    temperature=0,
    max_tokens=ENOUGH_TOKENS,
    max_retries=0,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
)
MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def weather(city: CityName) -> str:
    """The weather of a city."""
    return f"It is sunny in {city}."


def chat_and_stream() -> None:
    answer = llm.chat(MESSAGES).message.content
    assert ANSWER in answer
    assert "".join(piece.delta or "" for piece in llm.stream_chat(MESSAGES)) == answer

    async def stream() -> str:
        pieces = await llm.astream_chat(MESSAGES)
        return "".join([piece.delta or "" async for piece in pieces])

    assert asyncio.run(stream()) == answer


def completion() -> None:
    completions = llm.model_copy(update={"is_chat_model": False, "max_tokens": 5})
    text = completions.complete("The capital").text
    assert text
    pieces = completions.stream_complete("The capital")
    assert "".join(piece.delta or "" for piece in pieces) == text


def tool_call() -> None:
    tool = FunctionTool.from_defaults(weather)
    whole = llm.chat_with_tools([tool], QUESTION, tool_required=True)
    *_, streamed = llm.stream_chat_with_tools([tool], QUESTION, tool_required=True)
    for answer in (whole, streamed):
        (call,) = llm.get_tool_calls_from_response(answer)
        assert call.tool_name == "weather"
        assert call.tool_kwargs["city"] in CITIES
    assert "sunny" in llm.predict_and_call([tool], QUESTION, tool_required=True).response


def structured() -> None:
    output = llm.as_structured_llm(City).chat(MESSAGES)
    assert isinstance(output.raw, City)


run(chat_and_stream, completion, tool_call, structured)
