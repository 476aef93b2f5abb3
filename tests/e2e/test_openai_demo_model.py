"""A real model behind the whole mesh: what a user sees after `make run`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME

FRANCE: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
GREEDY = 0.0


@pytest.fixture
def client(demo_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo_mesh.base_url, api_key="unused", max_retries=0) as opened:
        yield opened


def ask(
    client: openai.OpenAI, messages: list[ChatCompletionMessageParam], max_tokens: int = 64
) -> str:
    answer = client.chat.completions.create(
        model=DEMO_MODEL_NAME, messages=messages, temperature=GREEDY, max_tokens=max_tokens
    )
    return answer.choices[0].message.content or ""


def test_it_answers_what_it_was_trained_for(client: openai.OpenAI) -> None:
    assert "Paris" in ask(client, FRANCE)


def test_it_answers_over_several_turns(client: openai.OpenAI) -> None:
    first = ask(client, FRANCE)
    answer = ask(
        client,
        [
            *FRANCE,
            {"role": "assistant", "content": first},
            {"role": "user", "content": "What is the capital of Japan?"},
        ],
    )
    assert "Tokyo" in answer


def test_stream_and_body_say_the_same_with_honest_usage(client: openai.OpenAI) -> None:
    body = client.chat.completions.create(
        model=DEMO_MODEL_NAME, messages=FRANCE, temperature=GREEDY
    )
    stream = client.chat.completions.create(
        model=DEMO_MODEL_NAME,
        messages=FRANCE,
        temperature=GREEDY,
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
    )
    text, usage, tokens = "", None, 0
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.logprobs is not None:
                tokens += len(choice.logprobs.content or ())
    assert body.choices[0].finish_reason == "stop"
    assert text == body.choices[0].message.content
    assert body.usage is not None
    assert usage is not None
    assert usage.completion_tokens == body.usage.completion_tokens
    # The end-of-turn token is counted, but not shown.
    assert usage.completion_tokens - tokens in (0, 1)


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    def draw(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model=DEMO_MODEL_NAME,
            messages=[{"role": "user", "content": "Tell me something."}],
            temperature=1.5,
            seed=seed,
            max_tokens=24,
        )
        return answer.choices[0].message.content

    first = draw(1)
    assert draw(1) == first
    assert {draw(2), draw(3)} != {first}


def test_a_stop_string_and_max_tokens(client: openai.OpenAI) -> None:
    stopped = client.chat.completions.create(
        model=DEMO_MODEL_NAME, messages=FRANCE, temperature=GREEDY, stop=["Paris"]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert "Paris" not in (stopped.choices[0].message.content or "")
    cut = client.chat.completions.create(
        model=DEMO_MODEL_NAME, messages=FRANCE, temperature=GREEDY, max_tokens=2
    )
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 2


def test_logprobs_are_those_of_a_distribution(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=DEMO_MODEL_NAME, prompt="Hello", temperature=GREEDY, max_tokens=3, logprobs=5
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    for chosen, top in zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert chosen == pytest.approx(max(top.values()))
        assert chosen <= 0


async def test_16_streams_of_a_real_model_at_once(demo_mesh: MeshNotice) -> None:
    async with openai.AsyncOpenAI(
        base_url=demo_mesh.base_url, api_key="unused", max_retries=0
    ) as client:

        async def answer() -> str:
            stream = await client.chat.completions.create(
                model=DEMO_MODEL_NAME, messages=FRANCE, temperature=GREEDY, stream=True
            )
            return "".join(
                [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            )

        answers = await asyncio.gather(*(answer() for _ in range(16)))
    assert all("Paris" in each for each in answers)


def test_an_echo_with_log_probabilities_scores_the_prompt(client: openai.OpenAI) -> None:
    prompt = "The capital of France is Paris."
    answer = client.completions.create(
        model=DEMO_MODEL_NAME,
        prompt=prompt,
        echo=True,
        logprobs=2,
        max_tokens=3,
        temperature=GREEDY,
    )
    (choice,) = answer.choices
    assert choice.text.startswith(prompt)
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert answer.usage is not None
    assert len(told.tokens) == answer.usage.total_tokens
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    assert all(value is not None and value <= 0 for value in told.token_logprobs[1:])
    assert all(1 <= len(each) <= 3 for each in told.top_logprobs[1:])


def test_best_of_returns_the_likeliest_and_counts_them_all(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=DEMO_MODEL_NAME,
        prompt="The capital",
        n=2,
        best_of=4,
        max_tokens=5,
        seed=3,
        logprobs=0,
        extra_body={"ignore_eos": True},
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    sums = []
    for choice in answer.choices:
        assert choice.logprobs is not None
        sums.append(sum(choice.logprobs.token_logprobs or ()))
    assert sums[0] >= sums[1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * 5
