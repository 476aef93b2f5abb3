"""Whether a suspected worker is dead before its TTL has passed. Pure.

Suspicion comes from a gateway's failure report or from a broken Attach stream. Neither proves a
death, so the controller dials the worker and weighs the answer with the heartbeats.
"""

from __future__ import annotations

from enum import Enum

# A silent worker is given this many heartbeat intervals since its last heartbeat: enough for one
# that is on its way, and half of what the default TTL gives.
SILENCE_INTERVALS = 1.5


class Dialled(Enum):
    """What became of a dial."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """Nobody listens there, the name is unknown, or what listens speaks no gRPC."""
    SILENT = "silent"
    """No answer within the limit."""


class Verdict(Enum):
    """What to do about a suspected worker."""

    TRUST = "trust"
    DIAL_AGAIN = "dial again"
    EXPIRE = "expire"


def judge(
    dialled: Dialled,
    *,
    attached: bool,
    suspected_at_s: float,
    renewed_at_s: float,
    now_s: float,
    heartbeat_interval_s: float,
) -> Verdict:
    """The verdict after a dial. `attached` tells whether the worker's Attach stream is open.

    A process that died has lost its stream and refuses the dial: it is expired at once. One that
    refuses with its stream open, or does not answer, may be cut off or stopped: it is trusted when
    a heartbeat came since the suspicion, and expired when one is overdue.
    """
    if dialled is Dialled.ANSWERED:
        return Verdict.TRUST
    if dialled is Dialled.REFUSED and not attached:
        return Verdict.EXPIRE
    if renewed_at_s > suspected_at_s:
        return Verdict.TRUST
    if now_s - renewed_at_s >= SILENCE_INTERVALS * heartbeat_interval_s:
        return Verdict.EXPIRE
    return Verdict.DIAL_AGAIN
