"""What can be done to a process of the mesh, and to which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What happens to a process."""

    KILL = "kill"
    """SIGKILL; it is started again after the outage."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT after the outage."""
    CUT = "cut"
    """Its network drops every packet for as long as the outage lasts."""
    RESTART = "restart"
    """SIGTERM; it is started again after it has ended and the outage is over."""


class Service(StrEnum):
    """What a process is."""

    WORKER = "worker"
    GATEWAY = "gateway"
    CONTROLLER = "controller"


@dataclass(frozen=True)
class Part:
    """A process that faults may hit. Parts of one group stand in for each other."""

    name: str
    service: Service
    group: str


@dataclass(frozen=True)
class Fault:
    """One fault of a schedule. Times are in seconds, `at_s` from the beginning of the run."""

    at_s: float
    kind: FaultKind
    part: str
    outage_s: float

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.kind:<7} {self.part} for {self.outage_s:.2f} s"


@dataclass
class Suffered:
    """A fault that happened. Times are in seconds of the monotonic clock."""

    fault: Fault
    service: Service
    address: str
    began_s: float
    back_s: float | None = None
    """When it was ready again, or heard again."""
