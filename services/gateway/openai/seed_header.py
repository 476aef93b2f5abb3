"""Tells REST clients which seed their answer was drawn with, so that they can ask for it again."""

from __future__ import annotations

from collections.abc import Iterable

from services.gateway.openai.failures import Context
from services.gateway.relay.generation import Generation

SEED_HEADER = "x-tokenmesh-seed"
"""A response header: the client's own seed, or the one that was drawn for it; of several prompts,
one for each, with commas between them."""


async def tell_seed(context: Context, generations: Iterable[Generation]) -> None:
    """Sends the header. To be called before the first body, and not before it is certain to come:
    with the header goes the status.
    """
    seeds = ",".join(str(generation.seed) for generation in generations)
    await context.send_initial_metadata(((SEED_HEADER, seeds),))
