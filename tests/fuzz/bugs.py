"""How a bug shows itself: in the code that a call ends with, and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from structlog.testing import capture_logs

BUGS = {"INTERNAL", "UNKNOWN"}
WRITE_FAILED = "Internal error from Core"
"""What gRPC's own client says when it writes on a call that the server has ended meanwhile."""


async def end_of(call: Any) -> str:
    """The name of the code that a call has ended with."""
    if await call.details() == WRITE_FAILED:
        return "ended before a write"
    return str((await call.code()).name)


@contextmanager
def none_logged() -> Iterator[None]:
    """Fails where a service of this process logs an error: what comes from outside is never one."""
    with capture_logs() as logged:
        yield
    errors = [each for each in logged if each["log_level"] in ("error", "critical")]
    assert not errors, errors[0]
