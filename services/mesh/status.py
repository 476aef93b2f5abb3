"""Translates between errors and google.rpc.Status, the form in which they travel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.mesh import errors

ERROR_DOMAIN = "tokenmesh"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
RETRY_AFTER_KEY = "retry-after"
CHALLENGE = ("www-authenticate", "Bearer")
"""What HTTP asks of a 401: how to say who one is (RFC 9110, 11.6.1)."""


def _subclasses(root: type[errors.MeshError]) -> Iterator[type[errors.MeshError]]:
    for child in root.__subclasses__():
        yield child
        yield from _subclasses(child)


_BY_REASON = {kind.default_reason: kind for kind in _subclasses(errors.MeshError)}
_BY_CODE = {kind.code: kind for kind in errors.MeshError.__subclasses__()}
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def to_status(error: errors.MeshError) -> status_pb2.Status:
    """The status with ErrorInfo, and BadRequest and RetryInfo where the error has them."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=error.message, details=details
    )


def from_status(status: status_pb2.Status) -> errors.MeshError:
    """The error that a status stands for: by its reason, else by its code."""
    reason: str | None = None
    field: str | None = None
    retry_after_s: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    code = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "INTERNAL"
    kind = _BY_REASON.get(reason or "")
    if kind is None or kind.code != code:
        kind = _BY_CODE.get(code, errors.InternalError)
    return kind(status.message, reason=reason, field=field, retry_after_s=retry_after_s)


def from_rpc_error(error: grpc.RpcError) -> errors.MeshError:
    """The error behind a failed call: its details where the peer sent them, else its code.

    A server that stops answers what has just come with CANCELLED. Who cancels a call of grpc.aio
    gets an asyncio.CancelledError, so that an error of this code is always the server's.
    """
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.CANCELLED:
        return errors.UnavailableError("the server stopped just as the call came")
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    if isinstance(error, grpc.aio.AioRpcError):
        packed = dict(error.trailing_metadata() or ()).get(STATUS_DETAILS_KEY)
        if isinstance(packed, bytes):
            status = status_pb2.Status.FromString(packed)
    if status is None and isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        number, _ = error.code().value
        status = status_pb2.Status(code=number, message=error.details() or str(error.code()))
    if status is None:
        return errors.InternalError(str(error))
    return from_status(status)


def grpc_code(error: errors.MeshError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return grpc.StatusCode[error.code]


def trailing_metadata(
    error: errors.MeshError, status: status_pb2.Status, request_id: str
) -> tuple[tuple[str, str | bytes], ...]:
    """What a failing call sends beside its code; Envoy makes response headers of it."""
    metadata: tuple[tuple[str, str | bytes], ...] = (
        (STATUS_DETAILS_KEY, status.SerializeToString()),
        (REQUEST_ID_KEY, request_id),
    )
    if isinstance(error, errors.UnauthenticatedError):
        metadata += (CHALLENGE,)
    if error.retry_after_s is not None:
        # Rounded up: who comes back sooner is refused again.
        metadata += ((RETRY_AFTER_KEY, str(max(1, math.ceil(error.retry_after_s)))),)
    return metadata


async def abort(
    context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    error: errors.MeshError,
    request_id: str,
    status: status_pb2.Status | None = None,
) -> NoReturn:
    """Ends the call with the error. `status` replaces the details that would be sent."""
    status = status or to_status(error)
    await context.abort(
        grpc_code(error),
        error.message,
        trailing_metadata=trailing_metadata(error, status, request_id),
    )
    raise AssertionError("context.abort raises")
