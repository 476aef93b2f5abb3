"""From what a client asked to embed or to score to what workers are asked, in parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.gateway.requests.cost import BYTES_PER_TOKEN
from services.gateway.requests.validation import (
    MAX_REQUEST_BYTES,
    MAX_USER_CHARACTERS,
    check_model_name,
)
from services.mesh.errors import InvalidRequestError, MeshError
from tokenmesh.gateway.v1 import embedding_pb2
from tokenmesh.worker.v1 import worker_pb2

MAX_INPUTS = 2048
"""Of one request, as OpenAI has it."""

PART_INPUTS = 128
"""Of one call to a worker. Smaller parts spread over more workers, and lose less with one; larger
ones fill batches better where nobody else asks anything."""

EncodeMessage = worker_pb2.EmbedRequest | worker_pb2.ScoreRequest
Message = TypeVar("Message", bound=EncodeMessage)

_PLACE = re.compile(r"\b(inputs|queries|documents)\[(\d+)\]")


@dataclass(frozen=True)
class Part(Generic[Message]):
    """Some of a request's texts, which one worker computes."""

    message: Message
    first: int
    """Number in the request of the part's first text."""
    numbered: frozenset[str]
    """The fields whose texts are numbered from `first`."""

    @property
    def cost_tokens(self) -> float:
        """Tokens of the texts, as far as one can tell without a tokenizer. 1 or more."""
        return 1 + self.message.ByteSize() / BYTES_PER_TOKEN

    def as_asked(self, error: MeshError) -> MeshError:
        """A worker's error, with its texts numbered as the client numbers them."""
        if error.field is not None:
            error.field = self._renumbered(error.field)
            error.message = self._renumbered(error.message)
        return error

    def _renumbered(self, text: str) -> str:
        def shift(found: re.Match[str]) -> str:
            name, number = found[1], int(found[2])
            return f"{name}[{number + self.first if name in self.numbered else number}]"

        return _PLACE.sub(shift, text)


def embed_parts(
    request: embedding_pb2.EmbedRequest, request_id: str
) -> Sequence[Part[worker_pb2.EmbedRequest]]:
    """The parts of an Embed.

    Raises:
        InvalidRequestError: a field is missing or out of range; `field` is its path.
    """
    _check(request)
    _check_number("inputs", len(request.inputs))
    _check_at_least_one(request, "dimensions")
    parts = []
    for first in range(0, len(request.inputs), PART_INPUTS):
        message = worker_pb2.EmbedRequest(request_id=request_id, model=request.model)
        for at, given in enumerate(request.inputs[first : first + PART_INPUTS], first):
            _add_input(message, given, f"inputs[{at}]")
        if request.HasField("dimensions"):
            message.dimensions = request.dimensions
        _set_truncation(request, message)
        parts.append(Part(message, first, frozenset({"inputs"})))
    return parts


def score_parts(
    request: embedding_pb2.ScoreRequest, request_id: str
) -> Sequence[Part[worker_pb2.ScoreRequest]]:
    """The parts of a Score.

    Raises:
        InvalidRequestError: a field is missing or out of range; `field` is its path.
    """
    _check(request)
    _check_number("documents", len(request.documents))
    _check_number("queries", len(request.queries))
    if len(request.queries) not in (1, len(request.documents)):
        raise InvalidRequestError(
            f"queries holds {len(request.queries)} texts: it must hold one, or one for each of the "
            f"{len(request.documents)} documents",
            field="queries",
        )
    for field in ("queries", "documents"):
        for at, text in enumerate(getattr(request, field)):
            _check_text(text, f"{field}[{at}]")
    is_paired = len(request.queries) > 1
    parts = []
    for first in range(0, len(request.documents), PART_INPUTS):
        here = slice(first, first + PART_INPUTS)
        message = worker_pb2.ScoreRequest(
            request_id=request_id,
            model=request.model,
            queries=request.queries[here] if is_paired else request.queries,
            documents=request.documents[here],
        )
        _set_truncation(request, message)
        numbered = {"documents", "queries"} if is_paired else {"documents"}
        parts.append(Part(message, first, frozenset(numbered)))
    return parts


def _check(request: embedding_pb2.EmbedRequest | embedding_pb2.ScoreRequest) -> None:
    check_model_name(request.model)
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"the request may have {MAX_REQUEST_BYTES} bytes at most, not {request.ByteSize()}",
            field="inputs" if isinstance(request, embedding_pb2.EmbedRequest) else "documents",
        )
    if len(request.user) > MAX_USER_CHARACTERS:
        raise InvalidRequestError(
            f"user may have {MAX_USER_CHARACTERS} characters at most", field="user"
        )
    _check_at_least_one(request, "truncate_tokens")


def _check_number(field: str, number: int) -> None:
    if not 1 <= number <= MAX_INPUTS:
        raise InvalidRequestError(
            f"{field} holds {number} texts: it must hold 1 to {MAX_INPUTS}", field=field
        )


def _check_at_least_one(
    request: embedding_pb2.EmbedRequest | embedding_pb2.ScoreRequest, field: str
) -> None:
    if request.HasField(field) and getattr(request, field) < 1:  # type: ignore[arg-type]
        raise InvalidRequestError(f"{field} is 0: it must be 1 or more", field=field)


def _check_text(text: str, field: str) -> None:
    if not text:
        raise InvalidRequestError(f"{field} is an empty text", field=field)


def _add_input(
    message: worker_pb2.EmbedRequest, given: embedding_pb2.EmbedInput, field: str
) -> None:
    kind = given.WhichOneof("input")
    if kind == "text":
        _check_text(given.text, field)
        message.inputs.add(text=given.text)
        return
    if kind is None:
        raise InvalidRequestError(f"{field} must hold text or token_ids", field=field)
    if not given.token_ids.values:
        raise InvalidRequestError(f"{field} holds no token ids", field=field)
    message.inputs.add().token_ids.values.extend(given.token_ids.values)


def _set_truncation(
    request: embedding_pb2.EmbedRequest | embedding_pb2.ScoreRequest, message: EncodeMessage
) -> None:
    if request.HasField("truncate"):
        message.truncate = request.truncate
    if request.HasField("truncate_tokens"):
        message.truncate_tokens = request.truncate_tokens
