"""A closed loop of clients: each asks again as soon as it has its answer.

What stands behind a client is a function that asks once; targets/ makes such functions.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

ANSWER_LIMIT_S = 60.0


@dataclass(slots=True)
class Answer:
    """One answer: when parts of it arrived, in seconds on the monotonic clock, and its length."""

    arrivals_s: list[float] = field(default_factory=list)
    completion_tokens: int = 0
    chunks: int = 0
    """Pieces of output that were sent one by one, of targets that count them. Fewer than tokens
    where tokens were merged."""


class AnswerError(Exception):
    """The target failed a request, or answered with less than was asked for."""


Ask = Callable[[int], Awaitable[Answer]]
"""Asks for so many completion tokens, over a connection that is open."""


@dataclass
class Measurement:
    """What a number of clients saw. Durations are in seconds."""

    elapsed_s: float = 0.0
    completion_tokens: int = 0
    chunks: int = 0
    request_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    """Between two arrivals of one answer. An arrival may bring several tokens."""
    errors: list[str] = field(default_factory=list)


async def _ask_once(
    ask: Ask, completion_tokens: int, measurement: Measurement, answer_limit_s: float
) -> bool:
    """Asks, and notes what came. Whether it was what had been asked for."""
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(answer_limit_s):
            answer = await ask(completion_tokens)
        if not answer.arrivals_s:
            raise AnswerError("an answer without content")
        if answer.completion_tokens != completion_tokens:
            raise AnswerError(f"{answer.completion_tokens} tokens instead of {completion_tokens}")
    except (AnswerError, TimeoutError) as error:
        measurement.errors.append(str(error) or type(error).__name__)
        return False
    arrivals_s = answer.arrivals_s
    measurement.request_s.append(time.perf_counter() - began_s)
    measurement.first_token_s.append(arrivals_s[0] - began_s)
    measurement.gap_s.extend(later - earlier for earlier, later in itertools.pairwise(arrivals_s))
    measurement.completion_tokens += answer.completion_tokens
    measurement.chunks += answer.chunks
    return True


async def _ask_until(
    deadline_s: float, ask: Ask, completion_tokens: int, measurement: Measurement
) -> None:
    """One client: asks until the deadline, and finishes what it has begun. An error ends it."""
    while time.perf_counter() < deadline_s and await _ask_once(
        ask, completion_tokens, measurement, ANSWER_LIMIT_S
    ):
        pass


async def measure(asks: Sequence[Ask], completion_tokens: int, duration_s: float) -> Measurement:
    """Lets each client ask for `duration_s` seconds.

    The elapsed time is that until the last answer's end, so nothing that is counted is outside.
    """
    measurement = Measurement()
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for ask in asks:
            clients.create_task(
                _ask_until(began_s + duration_s, ask, completion_tokens, measurement)
            )
    measurement.elapsed_s = time.perf_counter() - began_s
    return measurement


async def measure_rounds(
    asks: Sequence[Ask], completion_tokens: int, rounds: int, *, answer_limit_s: float
) -> Measurement:
    """Lets all clients ask at once, and again when the last has its answer, so many times."""
    measurement = Measurement()
    began_s = time.perf_counter()
    for _ in range(rounds):
        async with asyncio.TaskGroup() as clients:
            for ask in asks:
                clients.create_task(_ask_once(ask, completion_tokens, measurement, answer_limit_s))
    measurement.elapsed_s = time.perf_counter() - began_s
    return measurement
