"""Which requests may have been what a worker died of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(eq=False)
class Loss:
    """One time that a worker was lost."""

    is_silent: bool = False
    """Whether the worker only fell silent: then it may be cut off, and not dead."""
    was_survived: bool = False
    """Whether the same worker process has come back: then nothing has killed it."""


class Suspect(Protocol):
    """A request as it ran when its worker was lost."""

    @property
    def has_output(self) -> bool:
        """Whether the worker has produced a token of it."""
        ...

    @property
    def choices(self) -> int:
        """Sequences that it takes places for."""
        ...


Request = TypeVar("Request", bound=Suspect)


def suspects(requests: Iterable[Request], max_running: int) -> list[Request]:
    """The requests that the worker was about to begin, or just computed its first token of.

    What kills a worker kills it as soon as it is computed; what has produced tokens there is beyond
    suspicion, and what waited in the worker's queue was not computed.

    Args:
        requests: all that ran there, in the order in which they were sent.
        max_running: sequences that the worker computes at once. 0 when it has not told.
    """
    requests = list(requests)
    taken = sum(request.choices for request in requests if request.has_output)
    suspected: list[Request] = []
    for request in requests:
        if request.has_output:
            continue
        if max_running and suspected and taken >= max_running:
            break
        suspected.append(request)
        taken += request.choices
    return suspected
