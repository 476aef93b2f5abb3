"""Clients that ask one question after another, and keep every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from tests.chaos.places import LOOPBACK
from tests.chaos.questions import Question
from tests.chaos.streams import Exchange, ask


class Clients:
    """So many clients at one port, each with one request under way at any time."""

    def __init__(
        self, port: int, questions: Sequence[Question], *, count: int, seed: int, limit_s: float
    ) -> None:
        self.exchanges: list[Exchange] = []
        """Those that are over."""
        self._port = port
        self._questions = questions
        self._count = count
        self._seed = seed
        self._limit_s = limit_s
        self._is_over = asyncio.Event()

    async def run(self, spread_s: float) -> None:
        """Asks until `stop`, and returns when every answer has ended. The clients come in over
        `spread_s` seconds.
        """
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._count):
                tasks.create_task(self._one(number, spread_s * number / self._count))

    def stop(self) -> None:
        """Has nobody ask another question."""
        self._is_over.set()

    async def _one(self, number: int, delay_s: float) -> None:
        random = Random(f"{self._seed}/{number}")
        await asyncio.sleep(delay_s)
        asked = 0
        while not self._is_over.is_set():
            asked += 1
            request_id = f"chaos-{self._seed}-{number}-{asked}"
            question = random.choice(self._questions)
            exchange = await ask(LOOPBACK, self._port, question, request_id, self._limit_s)
            self.exchanges.append(exchange)
            if exchange.status != 200:
                # As clients do that are turned away.
                await asyncio.sleep(random.uniform(0.2, 0.6))


async def ask_each(port: int, questions: Sequence[Question], limit_s: float) -> list[Exchange]:
    """The answers to all questions, asked at once."""
    return list(
        await asyncio.gather(
            *(
                ask(LOOPBACK, port, question, f"chaos-undisturbed-{number}", limit_s)
                for number, question in enumerate(questions)
            )
        )
    )
