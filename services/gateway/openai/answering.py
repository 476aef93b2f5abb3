"""How a call answers: with one body at the end, or with events as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from services.gateway.openai.answer_body import AnswerBody
from services.gateway.openai.failures import EVENT_STREAM, JSON, Context
from services.gateway.openai.interleaving import Events, interleaved
from services.gateway.openai.seed_header import tell_seed
from services.gateway.relay.relay import Generation


class AnswerStream(Protocol):
    """Prints an answer while it comes."""

    def print(self, prompt_index: int, events: Events) -> bytes:
        """The server-sent events for what came; empty when there is nothing to tell yet."""
        ...

    def end(self) -> bytes:
        """The last events."""
        ...


async def bodies(
    context: Context, generations: Sequence[Generation], printer: AnswerBody | AnswerStream
) -> AsyncGenerator[HttpBody, None]:
    """What the generations of one call come to, the seed's header before it.

    Raises:
        MeshError: the first that a generation raises.
    """
    async with aclosing(interleaved(generations)) as answers:
        if isinstance(printer, AnswerBody):
            async for prompt_index, events in answers:
                printer.collect(prompt_index, events)
            await tell_seed(context, generations)
            yield HttpBody(content_type=JSON, data=printer.print())
            return
        has_begun = False
        async for prompt_index, events in answers:
            printed = printer.print(prompt_index, events)
            if printed:
                if not has_begun:
                    has_begun = True
                    await tell_seed(context, generations)
                yield HttpBody(content_type=EVENT_STREAM, data=printed)
        yield HttpBody(content_type=EVENT_STREAM, data=printer.end())
