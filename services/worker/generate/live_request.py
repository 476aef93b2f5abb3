"""The requests that run on this worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.worker.generate.credit import CreditWindow
from services.worker.metrics import ModelMetrics
from services.worker.parsing.request_parsing import RequestParsing

if TYPE_CHECKING:
    from services.worker.generate.generate_stream import GenerateStream

ENDED = -1


class LiveRequest:
    """One request of one stream, and how far each of its choices is.

    It is its own key in the engine, so that an event finds its stream without a look-up, and
    requests of two gateways never collide.
    """

    __slots__ = (
        "_produced_tokens",
        "credit",
        "finish_reason",
        "is_over",
        "is_submitted",
        "lead_tokens",
        "metrics",
        "model",
        "next_numbers",
        "parsing",
        "request_id",
        "request_key",
        "running_choices",
        "stream",
        "top_up_at_tokens",
    )

    def __init__(
        self,
        *,
        stream: GenerateStream,
        request_key: int,
        request_id: str,
        model: str,
        first_numbers: list[int],
        credit: CreditWindow,
        metrics: ModelMetrics,
    ) -> None:
        """`first_numbers` holds the number of the first event of each choice."""
        self.stream = stream
        self.request_key = request_key
        self.request_id = request_id
        self.model = model
        self.next_numbers = first_numbers
        self.running_choices = len(first_numbers)
        self.credit = credit
        self.top_up_at_tokens = credit.top_up_at_tokens
        self.metrics = metrics
        self.parsing: RequestParsing | None = None
        """What its output is parsed by. None: nothing of it is to be parsed."""
        self.finish_reason = ""
        self.lead_tokens = 0
        self.is_over = False
        self.is_submitted = False
        self._produced_tokens = [0] * len(first_numbers)

    def count_tokens(self, choice_index: int, tokens: int) -> bool:
        """Counts what a choice produced. Returns whether it is time to top the credit up."""
        produced = self._produced_tokens[choice_index] + tokens
        self._produced_tokens[choice_index] = produced
        if produced > self.lead_tokens:
            self.lead_tokens = produced
            return produced >= self.top_up_at_tokens
        return False

    def end_choice(self, choice_index: int) -> bool:
        """Ends a choice. Returns whether it was the last."""
        self.next_numbers[choice_index] = ENDED
        self.running_choices -= 1
        return self.running_choices == 0

    @property
    def is_owed(self) -> bool:
        """Whether the engine could go on with it: it has the request, and credit is left."""
        return self.is_submitted and self.credit.granted_tokens > self.lead_tokens

    def unended_choices(self) -> Iterator[tuple[int, int]]:
        """Index and next number of each choice that has not ended."""
        return ((index, each) for index, each in enumerate(self.next_numbers) if each != ENDED)


class LiveRequests:
    """All requests of all streams, and the calls that embed or score, which have none."""

    def __init__(self) -> None:
        self._requests: set[LiveRequest] = set()
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._requests) + self._calls

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(list(self._requests))

    def add(self, live: LiveRequest) -> None:
        """Takes a request in."""
        self._requests.add(live)
        self._none.clear()

    def discard(self, live: LiveRequest) -> None:
        """Lets a request go."""
        self._requests.discard(live)
        self._note_end()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Counts a call for as long as the context is open."""
        self._calls += 1
        self._none.clear()
        try:
            yield
        finally:
            self._calls -= 1
            self._note_end()

    def any_owed(self) -> bool:
        """Whether the engine could go on with some request."""
        return self._calls > 0 or any(live.is_owed for live in self._requests)

    async def wait_until_none(self) -> None:
        """Returns once no request runs."""
        await self._none.wait()

    def _note_end(self) -> None:
        if not len(self):
            self._none.set()
