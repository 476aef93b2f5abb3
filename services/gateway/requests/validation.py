"""From what a client asked to what a worker is told to start, or to why that cannot be.

What depends on the model (its context, its capabilities) is in `requirements`.
"""

from __future__ import annotations

from services.gateway.requests import chat_prompts, sampling_ranges
from services.mesh.channels import MAX_MESSAGE_BYTES
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import chat_pb2, completion_pb2
from tokenmesh.worker.v1 import worker_pb2

MAX_MODEL_NAME_CHARACTERS = 512
MAX_USER_CHARACTERS = 512
MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES // 2
"""A Start beyond what a message may hold would break the worker's stream for all its requests."""


def chat_start(request: chat_pb2.ChatRequest, request_id: str) -> worker_pb2.Start:
    """The Start of a conversation.

    Raises:
        InvalidRequestError: a field is missing or out of range; `field` is its path.
    """
    _check_envelope(request)
    chat_prompts.check(request.prompt)
    sampling_ranges.check(request.sampling)
    return worker_pb2.Start(
        request_id=request_id,
        model=request.model,
        sampling=request.sampling,
        priority=request.priority,
        chat=request.prompt,
    )


def completion_start(request: completion_pb2.CompleteRequest, request_id: str) -> worker_pb2.Start:
    """The Start of a plain completion.

    Raises:
        InvalidRequestError: a field is missing or out of range; `field` is its path.
    """
    _check_envelope(request)
    sampling_ranges.check(request.sampling)
    start = worker_pb2.Start(
        request_id=request_id,
        model=request.model,
        sampling=request.sampling,
        priority=request.priority,
        echo=request.echo,
    )
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequestError("prompt must be set: text or token_ids", field="prompt")
    if kind == "text":
        start.text = request.text
        return start
    if not request.token_ids.values:
        raise InvalidRequestError(
            "token_ids.values must hold at least one token id", field="token_ids.values"
        )
    start.token_ids.values.extend(request.token_ids.values)
    return start


def check_model_name(model: str) -> None:
    """Checks a name that a client asks for.

    Raises:
        InvalidRequestError: it is empty or absurdly long.
    """
    if not model:
        raise InvalidRequestError("model must name a model, alias or adapter", field="model")
    if len(model) > MAX_MODEL_NAME_CHARACTERS:
        raise InvalidRequestError(
            f"model may have {MAX_MODEL_NAME_CHARACTERS} characters at most", field="model"
        )


def _check_envelope(request: chat_pb2.ChatRequest | completion_pb2.CompleteRequest) -> None:
    check_model_name(request.model)
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"prompt: the request may have {MAX_REQUEST_BYTES} bytes at most, "
            f"not {request.ByteSize()}",
            field="prompt",
        )
    if len(request.user) > MAX_USER_CHARACTERS:
        raise InvalidRequestError(
            f"user may have {MAX_USER_CHARACTERS} characters at most", field="user"
        )
