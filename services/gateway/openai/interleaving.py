"""Several generations of one request as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from services.gateway.relay.relay import Generation
from tokenmesh.worker.v1 import worker_pb2

Events = Sequence[worker_pb2.SequenceEvent]


async def interleaved(
    generations: Sequence[Generation],
) -> AsyncGenerator[tuple[int, Events], None]:
    """What the generations produce, as it comes, each with the generation's place.

    Close it (`contextlib.aclosing`) when it is left early.

    Raises:
        MeshError: the first that a generation raises.
    """
    if len(generations) == 1:
        async for events in generations[0]:
            yield 0, events
        return
    waiting = {
        asyncio.create_task(_next(generation)): index
        for index, generation in enumerate(generations)
    }
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                events_or_end = task.result()
                index = waiting.pop(task)
                if events_or_end is not None:
                    waiting[asyncio.create_task(_next(generations[index]))] = index
                    yield index, events_or_end
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _next(generation: Generation) -> Events | None:
    """The next events; None at the end."""
    async for events in generation:
        return events
    return None
