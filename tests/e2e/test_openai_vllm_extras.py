"""What vLLM's clients ask for beyond OpenAI's API, of a real model behind the whole mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME
from services.mesh.channels import open_channel
from tokenmesh.gateway.v1 import model_pb2, model_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"model": DEMO_MODEL_NAME, "temperature": 0}
PROMPT = "The capital of France"


class Client:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def __call__(self, path: str, **body: Any) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chat(self, **fields: Any) -> Any:
        return self("/v1/chat/completions", **{**GREEDY, "messages": FRANCE, **fields})

    def complete(self, **fields: Any) -> Any:
        return self("/v1/completions", **{**GREEDY, "prompt": PROMPT, "max_tokens": 4, **fields})

    def tokenize(self, **fields: Any) -> Any:
        return self("/tokenize", model=DEMO_MODEL_NAME, **fields)


@pytest.fixture(scope="module")
def client(demo_mesh: MeshNotice) -> Iterator[Client]:
    with httpx.Client(base_url=f"http://{demo_mesh.grpc_address}", timeout=60) as http:
        yield Client(http)


@pytest.fixture
async def models(demo_mesh: MeshNotice) -> AsyncIterator[Any]:
    async with open_channel(demo_mesh.grpc_address) as channel:
        yield model_pb2_grpc.ModelServiceStub(channel)


def test_tokens_of_a_text_and_back(client: Client) -> None:
    told = client.tokenize(prompt=PROMPT, return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert "".join(told["token_strs"]).endswith(PROMPT)
    back = client("/detokenize", model=DEMO_MODEL_NAME, tokens=told["tokens"])
    assert back == {"prompt": "".join(told["token_strs"])}
    plain = client.tokenize(prompt=PROMPT, add_special_tokens=False)
    assert client("/detokenize", model=DEMO_MODEL_NAME, tokens=plain["tokens"])["prompt"] == PROMPT


def test_tokens_of_a_conversation_are_those_that_it_costs(client: Client) -> None:
    told = client.tokenize(messages=FRANCE)
    answer = client.chat(return_token_ids=True, max_tokens=3)
    assert answer["prompt_token_ids"] == told["tokens"]
    assert answer["usage"]["prompt_tokens"] == told["count"]
    assert len(answer["choices"][0]["token_ids"]) == 3
    shorter = client.tokenize(messages=FRANCE, add_generation_prompt=False)
    assert told["tokens"][: shorter["count"]] == shorter["tokens"]
    assert shorter["count"] < told["count"]


def test_a_token_check_counts_as_completions_do(client: Client) -> None:
    answer = client.complete(return_token_ids=True)
    context_tokens = client.tokenize(prompt=PROMPT)["max_model_len"]
    prompt_tokens = answer["usage"]["prompt_tokens"]
    asked = [
        {
            "model": DEMO_MODEL_NAME,
            "prompt": PROMPT,
            "max_tokens": context_tokens - prompt_tokens + n,
        }
        for n in (0, 1)
    ]
    checked = client("/api/v1/token_check", prompts=asked)["prompts"]
    counts = {"tokenCount": prompt_tokens, "contextLength": context_tokens}
    assert checked == [{"fits": True, **counts}, {"fits": False, **counts}]


async def test_typed_clients_are_told_the_same_tokens(client: Client, models: Any) -> None:
    request = model_pb2.TokenizeRequest(model=DEMO_MODEL_NAME, with_texts=True)
    request.chat.messages.add(
        role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=FRANCE[0]["content"])]
    )
    typed = await models.Tokenize(request)
    told = client.tokenize(messages=FRANCE, return_token_strs=True)
    assert told["tokens"] == list(typed.token_ids)
    assert told["token_strs"] == list(typed.texts)
    assert told["max_model_len"] == typed.context_length_tokens
    counted = await models.CountTokens(
        model_pb2.CountTokensRequest(model=DEMO_MODEL_NAME, text=PROMPT)
    )
    assert counted.prompt_tokens == client.tokenize(prompt=PROMPT)["count"]
    with pytest.raises(grpc.aio.AioRpcError):
        await models.Detokenize(
            model_pb2.DetokenizeRequest(model=DEMO_MODEL_NAME, token_ids=[10**9])
        )


def test_log_probabilities_of_the_prompt(client: Client) -> None:
    chat = client.chat(prompt_logprobs=2, return_token_ids=True, max_tokens=2)
    completion = client.complete(prompt_logprobs=0, return_token_ids=True)["choices"][0]
    assert completion["logprobs"] is None
    for told, token_ids in (
        (chat["prompt_logprobs"], chat["prompt_token_ids"]),
        (completion["prompt_logprobs"], completion["prompt_token_ids"]),
    ):
        assert told[0] is None
        assert len(told) == len(token_ids)
        for entries, token_id in zip(told[1:], token_ids[1:], strict=True):
            assert entries[str(token_id)]["logprob"] <= 0
            ranks = sorted(entry["rank"] for entry in entries.values() if entry["rank"])
            assert ranks == list(range(1, len(ranks) + 1))


def test_an_answer_that_goes_on_from_a_message(client: Client) -> None:
    begun = [*FRANCE, {"role": "assistant", "content": "The capital"}]
    options = {"messages": begun, "continue_final_message": True, "add_generation_prompt": False}
    rest = client.chat(**options)["choices"][0]["message"]["content"]
    whole = client.chat(**options, echo=True)["choices"][0]["message"]["content"]
    assert whole == "The capital" + rest
    assert "Paris" in whole


def test_what_stopped_an_answer_is_told(client: Client) -> None:
    free = client.chat(return_token_ids=True)["choices"][0]
    assert (free["finish_reason"], "stop_reason" in free) == ("stop", False)
    by_text = client.chat(stop=["zz", "Paris"])["choices"][0]
    assert (by_text["finish_reason"], by_text["stop_reason"]) == ("stop", "Paris")
    kept = client.chat(stop=["Paris"], include_stop_str_in_output=True)["choices"][0]
    assert kept["message"]["content"].endswith("Paris")
    second = free["token_ids"][1]
    by_token = client.chat(stop_token_ids=[second])["choices"][0]
    assert by_token["stop_reason"] == second


def test_lengths_that_are_asked_for(client: Client) -> None:
    long = client.chat(min_tokens=40, max_tokens=40)
    assert long["usage"]["completion_tokens"] == 40
    endless = client.chat(ignore_eos=True, max_tokens=40)
    assert endless["usage"]["completion_tokens"] == 40


def test_bad_words_and_biases(client: Client) -> None:
    without = client.chat(bad_words=["Paris"])["choices"][0]["message"]["content"]
    assert "Paris" not in without
    first = client.chat(return_token_ids=True)["choices"][0]["token_ids"][0]
    other = client.chat(return_token_ids=True, logit_bias={str(first): -100})["choices"][0]
    assert other["token_ids"][0] != first


def test_special_tokens_may_be_shown(client: Client) -> None:
    ending = client.chat(return_token_ids=True)["choices"][0]["token_ids"][-1]
    marker = client("/detokenize", model=DEMO_MODEL_NAME, tokens=[ending])["prompt"]
    beyond = {"ignore_eos": True, "max_tokens": 24}
    shown = client.chat(**beyond, skip_special_tokens=False)["choices"][0]["message"]["content"]
    hidden = client.chat(**beyond)["choices"][0]["message"]["content"]
    assert marker in shown
    assert marker not in hidden


def test_the_best_of_several_chats(client: Client) -> None:
    drawn = client.chat(temperature=1.5, best_of=3, n=1, seed=3, max_tokens=4, ignore_eos=True)
    assert len(drawn["choices"]) == 1
    assert drawn["usage"]["completion_tokens"] == 3 * 4
