"""Errors as OpenAI's clients know them: the design's table of what happened to what they read."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import any_pb2, struct_pb2
from google.rpc import code_pb2, status_pb2

from services.gateway.openai.json_text import encoded, event
from services.gateway.openai.spelling import Spelling
from services.mesh import errors
from tokenmesh.openai.v1 import error_pb2

# Where an error that may pass does not say when: soon, but not at once.
DEFAULT_RETRY_AFTER_S = 1.0

_TYPES = {
    "UNAUTHENTICATED": "authentication_error",
    "PERMISSION_DENIED": "permission_error",
    "RESOURCE_EXHAUSTED": "rate_limit_error",
    "UNAVAILABLE": "server_error",
    "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "server_error",
}
# Reasons that say no more than the type does.
_WITHOUT_CODE = frozenset({"INVALID_REQUEST", "PERMISSION_DENIED", "INTERNAL", "NOT_FOUND"})
_CODES = {"RATE_LIMITED": "rate_limit_exceeded"}


@dataclass(frozen=True)
class OpenAIError:
    """The fields of `error`, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None

    def json(self) -> str:
        """The body of an error response."""
        return encoded(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def event(self) -> bytes:
        """The server-sent event that ends a stream which has begun."""
        return event(self.json())


def for_http(error: errors.MeshError) -> errors.MeshError:
    """The error under the code that becomes the right HTTP status, with a time to retry after."""
    if isinstance(error, errors.UnsupportedError):
        return errors.InvalidRequestError(error.message, reason=error.reason, field=error.field)
    if isinstance(error, errors.ExhaustedError | errors.UnavailableError):
        error.retry_after_s = error.retry_after_s or DEFAULT_RETRY_AFTER_S
    return error


def openai_error(error: errors.MeshError, spelling: Spelling, model: str) -> OpenAIError:
    """What the client reads of an error. `model` is the name that it asked for."""
    if isinstance(error, errors.ModelNotFoundError):
        return OpenAIError(
            f"The model `{model}` does not exist or you do not have access to it.",
            "invalid_request_error",
            "model",
            "model_not_found",
        )
    return OpenAIError(
        spelling.words(error.message),
        "server_error"
        if isinstance(error, errors.OutOfMemoryError)
        else _TYPES.get(error.code, "invalid_request_error"),
        None if error.field is None else spelling.field(error.field),
        _code(error.reason),
    )


def _code(reason: str) -> str | None:
    if reason in _WITHOUT_CODE:
        return None
    return _CODES.get(reason, reason.lower())


def status_with(error: errors.MeshError, shown: OpenAIError) -> status_pb2.Status:
    """The status whose one detail Envoy prints as the body."""
    detail = any_pb2.Any()
    detail.Pack(
        error_pb2.Error(
            message=shown.message,
            type=shown.type,
            param=_string_or_null(shown.param),
            code=_string_or_null(shown.code),
        )
    )
    return status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=shown.message, details=[detail]
    )


def _string_or_null(value: str | None) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    return struct_pb2.Value(string_value=value)
