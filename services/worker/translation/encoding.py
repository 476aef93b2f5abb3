"""Embed and Score: from the proto's calls to an engine's, and back."""

from __future__ import annotations

from services.mesh.errors import InvalidRequestError
from services.worker.engines.encoding import (
    EmbedCall,
    Embedded,
    EmbedInput,
    ScoreCall,
    Scored,
    Truncation,
)
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2


def embed_call(request: worker_pb2.EmbedRequest, deadline_s: float | None) -> EmbedCall:
    """The call as an engine takes it.

    Raises:
        InvalidRequestError: it has no inputs, or one of them is none.
    """
    if not request.inputs:
        raise InvalidRequestError("inputs holds no text", field="inputs")
    return EmbedCall(
        request_id=request.request_id,
        model=request.model,
        inputs=[_input(each, number) for number, each in enumerate(request.inputs)],
        dimensions=request.dimensions if request.HasField("dimensions") else None,
        truncation=_truncation(request),
        deadline_s=deadline_s,
    )


def embed_response(embedded: Embedded) -> worker_pb2.EmbedResponse:
    """The answer as gateways read it."""
    response = worker_pb2.EmbedResponse(usage=_usage(embedded.prompt_tokens))
    for vector in embedded.vectors:
        response.embeddings.add(values=vector)
    return response


def score_call(request: worker_pb2.ScoreRequest, deadline_s: float | None) -> ScoreCall:
    """The call as an engine takes it.

    Raises:
        InvalidRequestError: it has no queries or no documents.
    """
    for field in ("queries", "documents"):
        if not getattr(request, field):
            raise InvalidRequestError(f"{field} holds no text", field=field)
    return ScoreCall(
        request_id=request.request_id,
        model=request.model,
        queries=list(request.queries),
        documents=list(request.documents),
        truncation=_truncation(request),
        deadline_s=deadline_s,
    )


def score_response(scored: Scored) -> worker_pb2.ScoreResponse:
    """The answer as gateways read it."""
    return worker_pb2.ScoreResponse(scores=scored.scores, usage=_usage(scored.prompt_tokens))


def _input(given: worker_pb2.EmbedInput, number: int) -> EmbedInput:
    kind = given.WhichOneof("input")
    if kind == "text":
        return given.text
    if kind == "token_ids":
        return tuple(given.token_ids.values)
    field = f"inputs[{number}]"
    raise InvalidRequestError(f"{field} must hold text or token_ids", field=field)


def _truncation(request: worker_pb2.EmbedRequest | worker_pb2.ScoreRequest) -> Truncation:
    return Truncation(
        truncate=request.truncate if request.HasField("truncate") else None,
        tokens=request.truncate_tokens if request.HasField("truncate_tokens") else None,
    )


def _usage(prompt_tokens: int) -> generation_pb2.Usage:
    return generation_pb2.Usage(prompt_tokens=prompt_tokens)
