"""What the event loop tells the engine's thread."""

from __future__ import annotations

import queue
from collections.abc import Hashable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.worker.engines.transformers.scheduling.sequence import Sequence


@dataclass(frozen=True)
class Add:
    """New sequences join."""

    sequences: Rows[Sequence]


@dataclass(frozen=True)
class Abort:
    """A request leaves."""

    key: Hashable


@dataclass(frozen=True)
class Grant:
    """A request's choices may produce more."""

    key: Hashable
    tokens: int


@dataclass(frozen=True)
class Wake:
    """Something outside has changed: look again."""


@dataclass(frozen=True)
class Stop:
    """The loop ends."""


Command = Add | Abort | Grant | Wake | Stop
Commands = queue.SimpleQueue[Command]
