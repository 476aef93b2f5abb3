"""The key that commands send to a mesh."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

API_KEY_VARIABLE = "TOKENMESH_API_KEY"
"""OPENAI_API_KEY is not looked at: it would be told to whoever runs the mesh."""


def with_key(channel: grpc.Channel) -> grpc.Channel:
    """The channel, on which each call brings the key of TOKENMESH_API_KEY, if there is one."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    return grpc.intercept_channel(channel, _Bearer(key)) if key else channel


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _CallDetailsWithKey(_CallDetails, grpc.ClientCallDetails):
    pass


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the key to a call's metadata."""

    def __init__(self, key: str) -> None:
        self._header = ("authorization", f"Bearer {key}")

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        """Sends a call that has one answer."""
        return continuation(self._with_header(details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        """Sends a call that is answered with a stream."""
        return continuation(self._with_header(details), request)

    def _with_header(self, details: Any) -> _CallDetailsWithKey:
        return _CallDetailsWithKey(
            details.method,
            details.timeout,
            (*(details.metadata or ()), self._header),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
