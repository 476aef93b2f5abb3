"""How long a client gives a request."""

from __future__ import annotations

import math
from typing import Any

import grpc

from services.mesh.errors import InvalidRequestError

REQUEST_TIMEOUT_KEY = "x-request-timeout"
"""Metadata, or an HTTP header at Envoy: seconds, as a decimal number."""


def time_left_s(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    """The lesser of the call's own deadline and the metadata x-request-timeout, in seconds.

    None when the client set neither.

    Raises:
        InvalidRequestError: x-request-timeout is not a number over 0.
    """
    given = [remaining] if (remaining := context.time_remaining()) is not None else []
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_TIMEOUT_KEY:
            given.append(_parse(str(value)))
    return min(given, default=None)


def _parse(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidRequestError(
            f"{REQUEST_TIMEOUT_KEY} must be a number of seconds over 0, not {value!r}",
            field=REQUEST_TIMEOUT_KEY,
        )
    return seconds
