"""Whether a request is what its workers died of. Pure.

A request is suspected while its last worker was lost before it gave a token of it. It is convicted
when that has happened `deaths` times in a row; a worker that only fell silent counts half, since
networks fail for several workers at once. A suspect runs on probation: alone among suspects on
its worker until its first token there, so that no other is convicted for it.
"""

from __future__ import annotations

from services.gateway.links.suspects import Loss

DEATH_WEIGHT = 2
SILENCE_WEIGHT = 1


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
        weight = sum(
            SILENCE_WEIGHT if loss.is_silent else DEATH_WEIGHT for loss in self._standing()
        )
        return 0 < DEATH_WEIGHT * self._deaths <= weight

    def accuse(self, loss: Loss) -> None:
        """Its worker was lost, and it may have been the cause."""
        self._losses.append(loss)

    def clear(self) -> None:
        """A worker has given a token of it, and lives."""
        self._losses.clear()

    def _standing(self) -> list[Loss]:
        return [loss for loss in self._losses if not loss.was_survived]
