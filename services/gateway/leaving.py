"""What happens when a client's call is over, however it came to its end."""

from __future__ import annotations

from typing import Any

import grpc

from services.gateway.generation import Generation


def abandon_when_over(context: grpc.aio.ServicerContext[Any, Any], generation: Generation) -> None:
    """Ends the generation with the call.

    A cancelled call may leave the generator that holds the generation suspended where it yields;
    the worker must not go on until the garbage collector finds it.
    """
    context.add_done_callback(lambda _: generation.abandon())  # type: ignore[arg-type]
