"""Turns one written pattern into the many ways in which people say the same thing."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from random import Random

_CHOICE = re.compile(r"\(([^()]*)\)")
_OPENERS = (
    "Please tell me: ",
    "Hey, ",
    "Hi! ",
    "OK, ",
    "Quick question: ",
    "So, ",
    "Now ",
    "Tell me, ",
)
_CLOSERS = (" Please.", " Thanks.", " Thank you!")


@cache
def expand(pattern: str) -> tuple[str, ...]:
    """All readings of a pattern such as "How (do|can) I start( it|)?"."""
    pieces = _CHOICE.split(pattern)
    options = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return tuple("".join(reading) for reading in product(*options))


def say(rng: Random, *patterns: str) -> str:
    """One reading of one of the patterns."""
    return rng.choice(expand(rng.choice(patterns)))


def vary_surface(rng: Random, prompt: str, keep_case: bool = False) -> str:
    """The prompt as a hurried person types it: without capitals or a final stop."""
    roll = rng.random()
    if roll < 0.3 and not keep_case:
        prompt = prompt.lower()
    return prompt.rstrip("?.!") if roll < 0.15 or roll > 0.85 else prompt


def wrap(rng: Random, prompt: str) -> str:
    """The prompt with words around it that change nothing of what it asks."""
    roll = rng.random()
    if roll < 0.1:
        return rng.choice(_OPENERS) + prompt[0].lower() + prompt[1:]
    return prompt + rng.choice(_CLOSERS) if roll < 0.15 else prompt
