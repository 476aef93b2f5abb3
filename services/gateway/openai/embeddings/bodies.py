"""Prints embeddings, ranks and scores as JSON."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence

from services.gateway.openai.embeddings.request import BASE64
from services.gateway.openai.json_text import encoded, quoted
from services.gateway.relay.encode_relay import Encoded
from tokenmesh.worker.v1 import worker_pb2

PART_BYTES = 1024 * 1024
"""Of a body that is sent in parts: one message is bounded, and other requests have their turn
between two."""


def embedding_bodies(
    embedded: Encoded[worker_pb2.EmbedResponse], encoding_format: str
) -> Iterator[str]:
    """The JSON of OpenAI's embedding list, in parts of about PART_BYTES."""
    print_vector: Callable[[Sequence[float]], str] = (
        _base64 if encoding_format == BASE64 else _numbers
    )
    parts, size, index = ['{"object":"list","data":['], 0, 0
    for answer in embedded.answers:
        for embedding in answer.embeddings:
            comma = "," if index else ""
            vector = print_vector(embedding.values)
            printed = f'{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}'
            parts.append(printed)
            size += len(printed)
            index += 1
            if size >= PART_BYTES:
                yield "".join(parts)
                parts, size = [], 0
    usage = _usage(embedded.prompt_tokens)
    parts.append(f'],"model":{quoted(embedded.model)},"usage":{usage}}}')
    yield "".join(parts)


def rerank_body(
    answer_id: str,
    scored: Encoded[worker_pb2.ScoreResponse],
    documents: Sequence[str],
    *,
    top_n: int | None,
    return_documents: bool,
) -> str:
    """The JSON of a rerank, as Jina's and vLLM's: the most relevant first."""
    scores = _scores(scored)
    # Documents of one score stay in the order in which they came.
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]
    results = [
        {
            "index": index,
            **({"document": {"text": documents[index]}} if return_documents else {}),
            "relevance_score": scores[index],
        }
        for index in order
    ]
    return encoded(
        {
            "id": answer_id,
            "model": scored.model,
            "usage": {
                "prompt_tokens": scored.prompt_tokens,
                "total_tokens": scored.prompt_tokens,
            },
            "results": results,
        }
    )


def score_body(answer_id: str, created_s: int, scored: Encoded[worker_pb2.ScoreResponse]) -> str:
    """The JSON of scores, as vLLM's."""
    return encoded(
        {
            "id": answer_id,
            "object": "list",
            "created": created_s,
            "model": scored.model,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(_scores(scored))
            ],
            "usage": {
                "prompt_tokens": scored.prompt_tokens,
                "total_tokens": scored.prompt_tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )


def _scores(scored: Encoded[worker_pb2.ScoreResponse]) -> list[float]:
    return [score for answer in scored.answers for score in answer.scores]


def _usage(prompt_tokens: int) -> str:
    return f'{{"prompt_tokens":{prompt_tokens},"total_tokens":{prompt_tokens}}}'


def _numbers(values: Sequence[float]) -> str:
    # Nine digits tell every float32 from its neighbours.
    return f"[{','.join(map('{:.9g}'.format, values))}]"


def _base64(values: Sequence[float]) -> str:
    """Of the values as float32, little-endian."""
    floats = array("f", values)
    if sys.byteorder == "big":
        floats.byteswap()
    return f'"{base64.b64encode(floats.tobytes()).decode("ascii")}"'
