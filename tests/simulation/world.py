"""Time, processes and the network between them, as far as the simulated mesh has any."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

CONNECTION_DIES_AFTER_S = 4.0
"""How long a peer may be silent before keepalive ends a connection to it."""


class Host:
    """Where one process at a time runs. It may be stopped, or its network may be cut."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0
        """Grows with each process that is started here."""
        self.is_alive = True
        self.is_stopped = False
        self.is_cut = False

    @property
    def is_silent(self) -> bool:
        """Whether nothing is heard from it, although nobody was told that it is gone."""
        return self.is_stopped or self.is_cut


class World:
    """The clock, and what is yet to happen. Everything drawn comes from one seed."""

    def __init__(self, seed: int) -> None:
        self.now_s = 0.0
        self.random = Random(seed)
        self._next = 0
        self._coming: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Has something happen later. What comes first happens first."""
        self._next += 1
        heapq.heappush(self._coming, (self.now_s + delay_s, self._next, act))

    def run_until(self, end_s: float) -> None:
        """Has happen what is due up to then."""
        while self._coming and self._coming[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._coming)
            act()
        self.now_s = end_s

    def latency_s(self) -> float:
        """How long a packet takes: mostly little, now and then much."""
        return self.random.uniform(0.0005, 0.01) * (20 if self.random.random() < 0.02 else 1)


class Connection:
    """A stream between two processes. What is sent arrives in order, or the connection ends.

    `on_end` is called once on either side that still lives: soon where the other's process has
    ended, late where the other is only silent.
    """

    def __init__(
        self,
        world: World,
        client: Host,
        server: Host,
        on_client_end: Callable[[], None],
        on_server_end: Callable[[], None],
    ) -> None:
        self.is_open = True
        self._world = world
        self._hosts = (client, server)
        self._lives = (client.life, server.life)
        self._on_end = (on_client_end, on_server_end)
        self._last_arrival_s = [0.0, 0.0]
        self._silent_since_s: float | None = None
        self._watch()

    def to_server(self, act: Callable[[], None]) -> None:
        """Sends something that has `act` happen at the server."""
        self._send(1, act)

    def to_client(self, act: Callable[[], None]) -> None:
        """Sends something that has `act` happen at the client."""
        self._send(0, act)

    def close(self) -> None:
        """Ends it on both sides."""
        if not self.is_open:
            return
        self.is_open = False
        for host, life, on_end in zip(self._hosts, self._lives, self._on_end, strict=True):
            if host.is_alive and host.life == life:
                self._world.after(self._world.latency_s(), on_end)

    def _send(self, side: int, act: Callable[[], None]) -> None:
        world = self._world
        arrival_s = max(world.now_s + world.latency_s(), self._last_arrival_s[side])
        self._last_arrival_s[side] = arrival_s
        world.after(arrival_s - world.now_s, lambda: self._arrive(side, act))

    def _arrive(self, side: int, act: Callable[[], None]) -> None:
        if not self.is_open or not self._is_between_the_living():
            return
        if any(host.is_silent for host in self._hosts):
            # Sent again, and read when both can be heard.
            self._world.after(0.2, lambda: self._arrive(side, act))
            self._last_arrival_s[side] = max(self._last_arrival_s[side], self._world.now_s + 0.2)
            return
        act()

    def _is_between_the_living(self) -> bool:
        return all(
            host.is_alive and host.life == life
            for host, life in zip(self._hosts, self._lives, strict=True)
        )

    def _watch(self) -> None:
        """Notices what ends a connection."""
        if not self.is_open:
            return
        if any(host.is_silent for host in self._hosts):
            if self._silent_since_s is None:
                self._silent_since_s = self._world.now_s
            if self._world.now_s - self._silent_since_s >= CONNECTION_DIES_AFTER_S:
                self.close()
                return
        elif not self._is_between_the_living():
            self.close()
            return
        else:
            self._silent_since_s = None
        self._world.after(0.25, self._watch)
