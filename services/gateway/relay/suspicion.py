"""Whether a request is what its workers died of. Pure.

A request is suspected while its last worker was lost before it gave a token of it. It is convicted
when that has happened `deaths` times in a row. A suspect runs on probation: alone among suspects on
its worker until its first token there, so that no other is convicted for it.
"""

from __future__ import annotations

from services.gateway.links.suspects import Loss


class Suspicion:
    """The losses that speak against one request.

    Args:
        deaths: losses that convict. 0 for never.
    """

    def __init__(self, deaths: int) -> None:
        self._deaths = deaths
        self._losses: list[Loss] = []

    @property
    def is_suspect(self) -> bool:
        """Whether it is to run on probation."""
        return bool(self._standing())

    @property
    def is_convicted(self) -> bool:
        """Whether it is to run nowhere any more."""
        return 0 < self._deaths <= len(self._standing())

    def accuse(self, loss: Loss) -> None:
        """Its worker was lost, and it may have been the cause."""
        self._losses.append(loss)

    def clear(self) -> None:
        """A worker has given a token of it, and lives."""
        self._losses.clear()

    def _standing(self) -> list[Loss]:
        return [loss for loss in self._losses if not loss.was_survived]
