"""The seam between responses and where they are kept. tests/fakes has a store without SQLite."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.gateway.openai.responses.items import Item

RUNNING_STATUSES = ("queued", "in_progress")


@dataclass(frozen=True)
class StoreLimits:
    """What a store keeps. What was not used for longest goes first; what runs never goes."""

    max_responses: int = 100_000
    max_bytes: int = 256 << 20
    ttl_s: float = 30 * 86_400.0
    """Since a response was made, or a conversation that it is part of went on."""


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is kept.

    Attributes:
        owner: whose it is; for anybody else it does not exist.
        previous_id: the response that it continues.
        input_items: its own input, without that of responses before it.
        response: its JSON object.
        is_background: whether it is made, or was, without its client waiting.
        has_events: whether its events are kept, so that they can be streamed again.
        alive_at_s: when whoever makes it was last heard of, in seconds since the epoch.
    """

    response_id: str
    owner: str
    status: str
    response: str
    input_items: Sequence[Item]
    previous_id: str | None = None
    is_background: bool = False
    has_events: bool = False
    created_at_s: float = 0.0
    alive_at_s: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it is still being made."""
        return self.status in RUNNING_STATUSES


@dataclass(frozen=True)
class StoreSize:
    """How much is kept."""

    responses: int
    size_bytes: int


class ResponseStore(Protocol):
    """Keeps responses. Every method raises StoreError where the store does not work."""

    async def put(self, stored: StoredResponse, items: Collection[str]) -> None:
        """Keeps a new response. `items` are the ids of all items in it.

        Raises:
            StoreError: it is larger than the whole store may be, too.
        """

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """A response; None where the owner has none of that id."""

    async def chain(self, response_id: str, owner: str) -> list[StoredResponse]:
        """A response and all that it continues, oldest first; empty where there is none of that id.
        Using them keeps them longer.

        Raises:
            BrokenChainError: one in between is no longer there.
        """

    async def find_items(self, item_ids: Collection[str], owner: str) -> dict[str, Item]:
        """Items by id, of the owner's responses and their inputs. What is not there is left out."""

    async def delete(self, response_id: str, owner: str) -> bool:
        """Forgets a response. False where there is none of that id."""

    async def update(
        self, response_id: str, status: str, response: str, items: Collection[str]
    ) -> bool:
        """Takes what became of a response that runs. False where it runs no longer, for it was
        cancelled, deleted, or taken for dead.
        """

    async def keep_alive(self, response_ids: Collection[str]) -> set[str]:
        """Notes that these are still being made. Returns those that still are to be."""

    async def add_events(self, response_id: str, first: int, events: Sequence[bytes]) -> None:
        """Keeps more events of a response, numbered from `first`."""

    async def events(self, response_id: str, after: int, limit: int) -> list[bytes]:
        """Up to `limit` events of a response, from the one with the number after `after`."""

    async def sweep(self) -> StoreSize:
        """Drops what is too old. Returns how much is left."""

    async def check(self) -> None:
        """Writes something, to see whether the store works."""

    async def close(self) -> None:
        """Ends what is still to be written."""
