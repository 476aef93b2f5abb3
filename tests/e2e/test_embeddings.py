"""Embeddings, rerank and score through Envoy, beside a model that chats."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import httpx
import openai
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import CHAT_MODEL, EMBEDDING_MODEL, RERANKING_MODEL
from tests.encoders import HIDDEN
from tokenmesh.gateway.v1 import embedding_pb2, embedding_pb2_grpc

TEXTS = ["The quick brown fox", "Vectors of like texts", "x"]


@pytest.fixture
def client(encoder_mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=encoder_mesh.base_url, api_key="x", max_retries=0) as opened:
        yield opened


@pytest.fixture
def rest(encoder_mesh: MeshNotice) -> Iterator[httpx.Client]:
    root = encoder_mesh.base_url.removesuffix("/v1")
    with httpx.Client(base_url=root, timeout=60) as opened:
        yield opened


def embed(client: openai.OpenAI, given: Any, **options: Any) -> list[list[float]]:
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=given, **options)
    assert answer.object == "list"
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return [each.embedding for each in answer.data]


def flat(vectors: Sequence[Sequence[float]]) -> list[float]:
    return [value for vector in vectors for value in vector]


def test_each_model_does_what_it_can(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {
        CHAT_MODEL,
        EMBEDDING_MODEL,
        RERANKING_MODEL,
    }
    answer = client.chat.completions.create(
        model=CHAT_MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=3
    )
    assert answer.usage is not None
    for model, ask in (
        (CHAT_MODEL, lambda: client.embeddings.create(model=CHAT_MODEL, input="x")),
        (RERANKING_MODEL, lambda: client.embeddings.create(model=RERANKING_MODEL, input="x")),
        (
            EMBEDDING_MODEL,
            lambda: client.chat.completions.create(
                model=EMBEDDING_MODEL, messages=[{"role": "user", "content": "hello"}]
            ),
        ),
        (
            EMBEDDING_MODEL,
            lambda: client.completions.create(model=EMBEDDING_MODEL, prompt="hello"),
        ),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask()
        assert (refused.value.code, refused.value.param) == ("capability_missing", "model")
        assert model in refused.value.message


def test_the_sdks_base64_is_what_floats_say(client: openai.OpenAI) -> None:
    by_default = embed(client, TEXTS)
    floats = embed(client, TEXTS, encoding_format="float")
    assert [len(each) for each in by_default] == [HIDDEN] * len(TEXTS)
    assert all(math.isclose(math.hypot(*each), 1, abs_tol=1e-5) for each in by_default)
    # Nine digits are all that a float32 has.
    assert flat(by_default) == pytest.approx(flat(floats), rel=1e-7, abs=1e-9)


def test_every_form_of_input(client: openai.OpenAI, rest: httpx.Client) -> None:
    tokenized = rest.post("/tokenize", json={"model": EMBEDDING_MODEL, "prompt": TEXTS[0]}).json()
    ids: list[int] = tokenized["tokens"]
    (by_text,) = embed(client, TEXTS[0])
    assert embed(client, [TEXTS[0]]) == [by_text]
    assert embed(client, ids) == [by_text]
    assert embed(client, [ids, ids[:3]])[0] == pytest.approx(by_text, abs=1e-5)
    (cut,) = embed(client, TEXTS[0], dimensions=4)
    length = math.hypot(*by_text[:4])
    assert cut == pytest.approx([value / length for value in by_text[:4]], abs=1e-5)
    usage = client.embeddings.create(model=EMBEDDING_MODEL, input=[ids, ids], user="me").usage
    assert (usage.prompt_tokens, usage.total_tokens) == (2 * len(ids), 2 * len(ids))


def test_the_body_is_exact(rest: httpx.Client) -> None:
    request = {"model": EMBEDDING_MODEL, "input": ["a", "b"], "dimensions": 2}
    answer = rest.post("/v1/embeddings", json=request)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert [list(each) for each in body["data"]] == [["object", "index", "embedding"]] * 2
    assert (body["model"], body["usage"]) == (
        EMBEDDING_MODEL,
        {"prompt_tokens": 6, "total_tokens": 6},
    )
    packed = rest.post("/v1/embeddings", json=request | {"encoding_format": "base64"}).json()
    for plain, each in zip(body["data"], packed["data"], strict=True):
        values = struct.unpack("<2f", base64.b64decode(each["embedding"]))
        assert list(values) == pytest.approx(plain["embedding"], abs=1e-8)


def test_as_many_texts_as_may_be_in_several_parts(rest: httpx.Client) -> None:
    texts = [f"text {number}" for number in range(2048)]
    answer = rest.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": texts})
    assert answer.status_code == 200
    assert len(answer.content) > 600_000
    data = answer.json()["data"]
    assert [each["index"] for each in data] == list(range(2048))
    (alone,) = rest.post(
        "/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": texts[2047]}
    ).json()["data"]
    assert data[2047]["embedding"] == pytest.approx(alone["embedding"], abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", None),
        ({"input": ""}, "input", None),
        ({"input": ["a", ""]}, "input[1]", None),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": {"a": 1}}, "input", "invalid_type"),
        ({"input": ["a", 3]}, "input[1]", "invalid_type"),
        ({"input": [1, "a"]}, "input[1]", "invalid_type"),
        ({"input": [1.5]}, "input[0]", "invalid_type"),
        ({"input": [-1]}, "input[0]", None),
        ({"input": [10**6]}, "input", None),
        ({"input": [[1], [10**6]]}, "input[1]", None),
        ({"input": [[1], []]}, "input[1]", None),
        ({"input": ["x"] * 2049}, "input", None),
        ({"input": ["a", "word " * 99]}, "input[1]", "context_length_exceeded"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"dimensions": 1000}, "dimensions", None),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "integer_below_min_value"),
        ({"truncate_prompt_tokens": 9999}, "truncate_prompt_tokens", None),
        ({"user": "u" * 600}, "user", None),
    ],
)
def test_what_cannot_be_is_named(
    rest: httpx.Client, fields: dict[str, Any], param: str, code: str | None
) -> None:
    request = {"model": EMBEDDING_MODEL, "input": "x"} | fields
    answer = rest.post("/v1/embeddings", json=request)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code), error
    assert param in error["message"]


def test_long_texts_are_cut_where_that_is_asked(rest: httpx.Client) -> None:
    for tokens, expected in ((-1, 64), (7, 7)):
        request = {
            "model": EMBEDDING_MODEL,
            "input": "word " * 99,
            "truncate_prompt_tokens": tokens,
        }
        answer = rest.post("/v1/embeddings", json=request).json()
        assert answer["usage"]["prompt_tokens"] == expected


DOCUMENTS = ["The fox", {"text": "Vectors of texts"}, "Workers"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
@pytest.mark.parametrize("model", [RERANKING_MODEL, EMBEDDING_MODEL])
def test_rerank(rest: httpx.Client, path: str, model: str) -> None:
    request = {"model": model, "query": "fox", "documents": DOCUMENTS}
    body = rest.post(path, json=request).json()
    assert (body["model"], list(body)) == (model, ["id", "model", "usage", "results"])
    assert body["id"].startswith("rerank-")
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    results = body["results"]
    scores = [each["relevance_score"] for each in results]
    assert scores == sorted(scores, reverse=True)
    texts = ["The fox", "Vectors of texts", "Workers"]
    assert sorted(each["index"] for each in results) == [0, 1, 2]
    assert all(each["document"] == {"text": texts[each["index"]]} for each in results)
    bare = rest.post(path, json=request | {"top_n": 2, "return_documents": False}).json()
    assert [each["index"] for each in bare["results"]] == [each["index"] for each in results[:2]]
    assert all(list(each) == ["index", "relevance_score"] for each in bare["results"])


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_score(rest: httpx.Client, path: str) -> None:
    def scores(first: Any, second: Any) -> list[float]:
        request = {"model": RERANKING_MODEL, "text_1": first, "text_2": second}
        body = rest.post(path, json=request).json()
        assert body["object"] == "list"
        assert [(each["index"], each["object"]) for each in body["data"]] == [
            (index, "score") for index in range(len(body["data"]))
        ]
        return [each["score"] for each in body["data"]]

    one_to_one = [*scores("fox", "The fox"), *scores("fox", "Workers")]
    assert all(0 < score < 1 for score in one_to_one)
    assert scores("fox", ["The fox", "Workers"]) == pytest.approx(one_to_one, abs=1e-5)
    assert scores(["fox", "fox"], ["The fox", "Workers"]) == pytest.approx(one_to_one, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/rerank", {"query": "", "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a", {"title": "b"}]}, "documents[1].text"),
        ("/v1/rerank", {"query": "q", "documents": ["a", 3]}, "documents[1]"),
        ("/v1/rerank", {"query": "q", "documents": ["a", ""]}, "documents[1]"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "q", "documents": ["a", "word " * 99]}, "documents[1]"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
        ("/v1/score", {"text_1": "a", "text_2": []}, "text_2"),
        ("/v1/score", {"text_1": "", "text_2": "b"}, "text_1"),
        ("/v1/score", {"text_1": "a", "text_2": ["b", ""]}, "text_2[1]"),
        ("/v1/score", {"text_1": "a", "text_2": [3]}, "text_2[0]"),
        ("/v1/score", {"text_1": "a", "text_2": "word " * 99}, "text_2"),
    ],
)
def test_ranks_and_scores_that_cannot_be(
    rest: httpx.Client, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = rest.post(path, json={"model": RERANKING_MODEL} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error


def test_wrong_methods_and_unknown_models(rest: httpx.Client) -> None:
    for path in ("/v1/embeddings", "/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"):
        assert rest.get(path).status_code == 405
        body = {"model": "nobody", "input": "x", "query": "q", "documents": ["d"]}
        answer = rest.post(path, json=body | {"text_1": "a", "text_2": "b"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_typed_clients_get_the_same(encoder_mesh: MeshNotice, client: openai.OpenAI) -> None:
    inputs = [embedding_pb2.EmbedInput(text=text) for text in TEXTS]
    with grpc.insecure_channel(encoder_mesh.grpc_address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        embedded = stub.Embed(embedding_pb2.EmbedRequest(model=EMBEDDING_MODEL, inputs=inputs))
        scored = stub.Score(
            embedding_pb2.ScoreRequest(model=RERANKING_MODEL, queries=["fox"], documents=TEXTS)
        )
    vectors = [list(each.values) for each in embedded.embeddings]
    assert flat(vectors) == pytest.approx(flat(embed(client, TEXTS)), abs=1e-6)
    assert len(scored.scores) == len(TEXTS)


def test_the_mesh_tells_what_its_models_can(encoder_mesh: MeshNotice) -> None:
    can = {name: set(each) for name, each in encoder_mesh.capabilities.items()}
    assert can[EMBEDDING_MODEL] == {"EMBED", "SCORE"}
    assert can[RERANKING_MODEL] == {"SCORE"}
    assert "CHAT" in can[CHAT_MODEL]
