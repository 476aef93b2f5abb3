"""What happens when a client's call is over, however it came to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.gateway.relay.generation import Generation

Context = grpc.aio.ServicerContext[Any, Any]


def when_over(context: Context, then: Callable[[], None]) -> None:
    """Calls `then` once the call is over.

    A cancelled call may leave the generator that serves it suspended where it yields, until the
    garbage collector finds it. What must not wait for that belongs here, not in a `finally`.
    """
    context.add_done_callback(lambda _: then())  # type: ignore[arg-type]


def abandon_when_over(context: Context, generation: Generation) -> None:
    """Ends the generation with the call, so that its worker does not go on."""
    when_over(context, generation.abandon)
