"""OpenAI's own Python SDK, unchanged, against a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=mesh.base_url, api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture
async def async_client(mesh: MeshNotice) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=mesh.base_url, api_key="unused", max_retries=0
    ) as opened:
        yield opened


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [SCRIPTED_MODEL]
    assert client.models.retrieve(SCRIPTED_MODEL).id == SCRIPTED_MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_chat_with_everything(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=SCRIPTED_MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Go on."},
        ],
        temperature=0.5,
        top_p=0.9,
        n=2,
        stop=["never said"],
        max_completion_tokens=7,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        logprobs=True,
        top_logprobs=2,
        seed=5,
        user="me",
    )
    assert answer.object == "chat.completion"
    assert answer.system_fingerprint
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.finish_reason == "length"
        assert choice.message.role == "assistant"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [len(token.top_logprobs) for token in choice.logprobs.content] == [2] * 7
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 14


def test_a_stream(client: openai.OpenAI) -> None:
    for _ in range(2):
        # From the second on, the prompt is cached.
        whole = client.chat.completions.create(model=SCRIPTED_MODEL, messages=HELLO, seed=2)
    with client.chat.completions.stream(
        model=SCRIPTED_MODEL,
        messages=HELLO,
        seed=2,
        stream_options={"include_usage": True},
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage


async def test_an_async_stream(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=SCRIPTED_MODEL, messages=HELLO, max_tokens=5, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_completions(async_client: openai.AsyncOpenAI) -> None:
    answer = await async_client.completions.create(
        model=SCRIPTED_MODEL, prompt=["a", "b"], max_tokens=4, logprobs=1
    )
    assert answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == [0, 1]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert len(logprobs.tokens) == 4
    stream = await async_client.completions.create(
        model=SCRIPTED_MODEL, prompt="a", max_tokens=4, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream])


def test_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=SCRIPTED_MODEL, messages=HELLO, temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=HELLO, stream=True)
    assert missing.value.code == "model_not_found"


async def test_64_streams_at_once(async_client: openai.AsyncOpenAI) -> None:
    async def tokens_of(number: int) -> int:
        stream = await async_client.chat.completions.create(
            model=SCRIPTED_MODEL,
            messages=[{"role": "user", "content": f"Hello {number}"}],
            max_tokens=50,
            stream=True,
            stream_options={"include_usage": True},
        )
        return sum([chunk.usage.completion_tokens async for chunk in stream if chunk.usage])

    counted = await asyncio.gather(*(tokens_of(number) for number in range(64)))
    assert counted == [50] * 64
