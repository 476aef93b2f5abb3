"""Which failures a request survives, how often, and how long it waits."""

from __future__ import annotations

import pytest

from services.gateway.relay.persistence import Persistence, PersistenceLimits
from services.mesh.errors import (
    InternalError,
    InvalidRequestError,
    MeshError,
    QueueFullError,
    UnavailableError,
    WorkerDrainingError,
    WorkerLostError,
)

LIMITS = PersistenceLimits(max_attempts=3, max_losses=4, wait_s=5.0)
LOST = WorkerLostError("gone")
FULL = QueueFullError("full")


def survives(persistence: Persistence, error: MeshError, *, has_output: bool = False) -> bool:
    try:
        persistence.fail(error, 0.0, has_output=has_output)
    except MeshError:
        return False
    return True


@pytest.mark.parametrize(
    ("error", "has_output", "survived"),
    [
        (LOST, False, 4),
        (LOST, True, 4),
        (FULL, False, 2),
        (UnavailableError("no"), False, 2),
        (InvalidRequestError("wrong"), True, 0),
        (InternalError("a bug"), True, 0),
    ],
    ids=lambda value: getattr(value, "reason", str(value)),
)
def test_how_many_failures_are_survived(error: MeshError, has_output: bool, survived: int) -> None:
    persistence = Persistence(LIMITS)
    outcomes = [survives(persistence, error, has_output=has_output) for _ in range(survived + 1)]
    assert outcomes == [True] * survived + [False]


def test_moves_and_refusals_of_an_answer_that_has_begun_count_by_time_only() -> None:
    persistence = Persistence(LIMITS)
    assert all(survives(persistence, WorkerDrainingError("drains")) for _ in range(50))
    assert all(survives(persistence, FULL, has_output=True) for _ in range(50))
    with pytest.raises(QueueFullError):
        persistence.fail(FULL, 5.0, has_output=True)


def test_only_what_a_worker_had_taken_waits() -> None:
    persistence = Persistence(LIMITS)
    assert survives(persistence, FULL)
    assert persistence.wait_s(0.0) == 0.0
    assert survives(persistence, LOST)
    assert persistence.wait_s(1.0) == 4.0
    assert survives(persistence, LOST)
    assert persistence.wait_s(4.0) == 1.0


def test_new_output_gives_new_patience_but_forgets_no_loss() -> None:
    persistence = Persistence(LIMITS)
    for _ in range(4):
        assert survives(persistence, LOST, has_output=True)
        persistence.progress()
        assert persistence.wait_s(0.0) == 0.0
    assert not survives(persistence, LOST, has_output=True)
