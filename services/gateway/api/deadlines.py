"""How long a client gives a request."""

from __future__ import annotations

import re
from typing import Any

import grpc

from services.mesh.errors import InvalidRequestError

REQUEST_TIMEOUT_KEY = "x-request-timeout"
"""Metadata, or an HTTP header at Envoy: a duration such as 2.5, 2.5s, 500ms, 3m or 1h. Without a
unit it is of seconds."""

_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9})(?P<unit>ms|s|m|h)?")
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def time_left_s(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    """The lesser of the call's own deadline and the metadata x-request-timeout, in seconds.

    None when the client set neither.

    Raises:
        InvalidRequestError: x-request-timeout is not a duration over 0.
    """
    given = [remaining] if (remaining := context.time_remaining()) is not None else []
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_TIMEOUT_KEY:
            given.append(_parse(str(value)))
    return min(given, default=None)


def _parse(value: str) -> float:
    match = _DURATION.fullmatch(value.strip())
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if not seconds > 0:
        raise InvalidRequestError(
            f"{REQUEST_TIMEOUT_KEY} must be a duration over 0, such as 30, 2.5s, 500ms or 3m, "
            f"not {value!r}",
            field=REQUEST_TIMEOUT_KEY,
        )
    return seconds
