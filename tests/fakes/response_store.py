"""Responses in plain dictionaries: a store without SQLite that obeys the same contract."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from services.gateway.openai.json_text import encoded
from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.store.base import StoredResponse, StoreLimits, StoreSize
from services.gateway.openai.responses.stored_json import output_items
from services.mesh.errors import BrokenChainError, StoreError


@dataclass
class _Kept:
    stored: StoredResponse
    items: set[str]
    used_at_s: float
    events: dict[int, bytes] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        written = self.stored.response, encoded(self.stored.input_items)
        return sum(len(text.encode()) for text in written) + sum(map(len, self.events.values()))


class FakeResponseStore:
    """A ResponseStore. With `failure` set, every call fails with it."""

    def __init__(self, limits: StoreLimits, clock_s: Callable[[], float]) -> None:
        self.failure: StoreError | None = None
        self._limits = limits
        self._clock_s = clock_s
        self._kept: dict[str, _Kept] = {}

    async def put(self, stored: StoredResponse, items: Collection[str]) -> None:
        self._check()
        kept = _Kept(stored, set(items), self._clock_s())
        if kept.size_bytes > self._limits.max_bytes:
            raise StoreError("the response is larger than the whole store")
        self._kept[stored.response_id] = kept
        self._evict()

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        kept = self._of(response_id, owner)
        return None if kept is None else kept.stored

    async def chain(self, response_id: str, owner: str) -> list[StoredResponse]:
        kept = self._of(response_id, owner)
        chain: list[_Kept] = []
        while kept is not None:
            chain.append(kept)
            previous_id = kept.stored.previous_id
            if previous_id is None:
                break
            kept = self._of(previous_id, owner)
            if kept is None:
                raise BrokenChainError(
                    f"Previous response with id '{previous_id}' not found",
                    field="previous_response_id",
                )
        for each in chain:
            each.used_at_s = self._clock_s()
        return [each.stored for each in reversed(chain)]

    async def find_items(self, item_ids: Collection[str], owner: str) -> dict[str, Item]:
        self._check()
        found = {}
        for item_id in item_ids:
            for response_id in list(self._kept):
                kept = self._of(response_id, owner)
                if kept is not None and item_id in kept.items:
                    items = (*kept.stored.input_items, *output_items(kept.stored))
                    found[item_id] = next(item for item in items if item["id"] == item_id)
        return found

    async def delete(self, response_id: str, owner: str) -> bool:
        if self._of(response_id, owner) is None:
            return False
        del self._kept[response_id]
        return True

    async def update(
        self, response_id: str, status: str, response: str, items: Collection[str]
    ) -> bool:
        self._check()
        kept = self._kept.get(response_id)
        if kept is None or not kept.stored.is_running:
            return False
        kept.stored = replace(kept.stored, status=status, response=response)
        kept.items |= set(items)
        self._evict()
        return True

    async def keep_alive(self, response_ids: Collection[str]) -> set[str]:
        self._check()
        alive = set()
        for response_id in response_ids:
            kept = self._kept.get(response_id)
            if kept is not None and kept.stored.is_running:
                kept.stored = replace(kept.stored, alive_at_s=self._clock_s())
                alive.add(response_id)
        return alive

    async def add_events(self, response_id: str, first: int, events: Sequence[bytes]) -> None:
        self._check()
        if response_id in self._kept:
            self._kept[response_id].events.update(enumerate(events, first))

    async def events(self, response_id: str, after: int, limit: int) -> list[bytes]:
        self._check()
        kept = self._kept.get(response_id)
        if kept is None:
            return []
        return [kept.events[number] for number in sorted(kept.events) if number > after][:limit]

    async def sweep(self) -> StoreSize:
        self._check()
        self._evict()
        return StoreSize(len(self._kept), self._size_bytes())

    async def check(self) -> None:
        self._check()

    async def close(self) -> None:
        """Keeps what it has: as a file does, for the next who opens it."""

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _of(self, response_id: str, owner: str) -> _Kept | None:
        self._check()
        kept = self._kept.get(response_id)
        if kept is None or kept.stored.owner != owner or self._is_stale(kept):
            return None
        return kept

    def _is_stale(self, kept: _Kept) -> bool:
        return kept.used_at_s < self._clock_s() - self._limits.ttl_s

    def _size_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())

    def _evict(self) -> None:
        ended = [
            (kept.used_at_s, response_id)
            for response_id, kept in self._kept.items()
            if not kept.stored.is_running
        ]
        for used_at_s, response_id in sorted(ended, key=lambda each: each[0]):
            over = (
                len(self._kept) > self._limits.max_responses
                or self._size_bytes() > self._limits.max_bytes
            )
            if over or used_at_s < self._clock_s() - self._limits.ttl_s:
                del self._kept[response_id]
