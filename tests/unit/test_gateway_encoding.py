"""What gateways refuse to embed or to score, and how they part what they do not refuse."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.requests.encoding import PART_INPUTS, embed_parts, score_parts
from services.mesh.errors import ContextLengthError, InvalidRequestError
from tokenmesh.gateway.v1 import embedding_pb2

MODEL = "m"


def embed_request(*texts: str, **fields: Any) -> embedding_pb2.EmbedRequest:
    inputs = [embedding_pb2.EmbedInput(text=text) for text in texts]
    return embedding_pb2.EmbedRequest(**{"model": MODEL, "inputs": inputs} | fields)


def score_request(
    queries: list[str], documents: list[str], **fields: Any
) -> embedding_pb2.ScoreRequest:
    return embedding_pb2.ScoreRequest(model=MODEL, queries=queries, documents=documents, **fields)


EMPTY_INPUT = embedding_pb2.EmbedInput()
NO_IDS = embedding_pb2.EmbedInput()
NO_IDS.token_ids.SetInParent()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (embed_request(), "inputs"),
        (embed_request(*["x"] * 2049), "inputs"),
        (embed_request("a", ""), "inputs[1]"),
        (embed_request(inputs=[EMPTY_INPUT]), "inputs[0]"),
        (embed_request(inputs=[NO_IDS]), "inputs[0]"),
        (embed_request("a", model=""), "model"),
        (embed_request("a", dimensions=0), "dimensions"),
        (embed_request("a", truncate_tokens=0), "truncate_tokens"),
        (embed_request("a", user="u" * 600), "user"),
        (score_request([], ["a"]), "queries"),
        (score_request(["a"], []), "documents"),
        (score_request(["a"], ["x"] * 2049), "documents"),
        (score_request(["a", "b"], ["a", "b", "c"]), "queries"),
        (score_request(["a"], ["b", ""]), "documents[1]"),
        (score_request([""], ["b"]), "queries[0]"),
        (score_request(["a"], ["b"], truncate_tokens=0), "truncate_tokens"),
    ],
)
def test_requests_that_cannot_be(field: str, request_: Any) -> None:
    is_embed = isinstance(request_, embedding_pb2.EmbedRequest)
    with pytest.raises(InvalidRequestError) as refused:
        embed_parts(request_, "r") if is_embed else score_parts(request_, "r")
    assert refused.value.field == field
    assert field.partition("[")[0] in refused.value.message


def test_parts_hold_all_texts_in_order() -> None:
    texts = [f"text {number}" for number in range(2 * PART_INPUTS + 1)]
    parts = embed_parts(embed_request(*texts), "r")
    assert [len(part.message.inputs) for part in parts] == [PART_INPUTS, PART_INPUTS, 1]
    assert [each.text for part in parts for each in part.message.inputs] == texts
    one = score_parts(score_request(["q"], texts), "r")
    assert [list(part.message.queries) for part in one] == [["q"]] * 3
    each = score_parts(score_request(texts, texts), "r")
    assert all(list(part.message.queries) == list(part.message.documents) for part in each)


@pytest.mark.parametrize(("queries", "numbered"), [(1, "queries[0]"), (300, "queries[256]")])
def test_errors_name_texts_as_the_client_numbers_them(queries: int, numbered: str) -> None:
    parts = score_parts(score_request(["q"] * queries, ["d"] * 300), "r")
    for field, expected in (("documents[3]", "documents[259]"), ("queries[0]", numbered)):
        error = parts[2].as_asked(ContextLengthError(f"{field} is long", field=field))
        assert (error.field, error.message) == (expected, f"{expected} is long")
    plain = parts[2].as_asked(InvalidRequestError("truncate_tokens is 1", field="truncate_tokens"))
    assert plain.field == "truncate_tokens"
