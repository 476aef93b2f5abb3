"""The registry: revisions, changes, and deltas that lead from a snapshot to what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.controller.deltas import Delta, PendingChanges
from services.controller.registry import (
    Change,
    Completeness,
    Load,
    Registry,
    RemovalCause,
    Snapshot,
    Worker,
    WorkerState,
)
from tests.fakes.workers import model, worker


class Follower:
    """What a gateway knows that applies a snapshot and then deltas, removals first."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.revision = snapshot.revision
        self.completeness = snapshot.completeness
        self.workers = {each.worker_id: each for each in snapshot.workers}

    def apply(self, delta: Delta) -> None:
        assert delta.revision > self.revision
        self.revision = delta.revision
        self.completeness = delta.completeness
        for removal in delta.removed:
            known = self.workers.get(removal.worker_id)
            if known is not None and known.incarnation == removal.incarnation:
                del self.workers[removal.worker_id]
        for each in delta.upserted:
            known = self.workers.get(each.worker_id)
            assert known is None or known.incarnation == each.incarnation
            self.workers[each.worker_id] = each


WORKER_IDS = st.sampled_from(["w1", "w2", "w3"])
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), WORKER_IDS, st.sampled_from(["a", "b"])),
    st.tuples(st.just("load"), WORKER_IDS, st.integers(0, 2)),
    st.tuples(st.just("drain"), WORKER_IDS, st.none()),
    st.tuples(st.just("remove"), WORKER_IDS, st.sampled_from(RemovalCause)),
    st.tuples(st.just("complete"), st.just(""), st.none()),
    st.tuples(st.just("take"), st.just(""), st.none()),
    st.tuples(st.just("watch anew"), st.just(""), st.none()),
)


@given(st.lists(OPERATIONS, max_size=40))
def test_snapshot_and_deltas_lead_to_what_is_known(
    operations: list[tuple[str, str, object]],
) -> None:
    registry = Registry()
    pending = PendingChanges(limit=1_000)
    follower = Follower(registry.watch("follower", pending.add))
    for kind, worker_id, argument in operations:
        match kind, argument:
            case "put", str(incarnation):
                registry.put(worker(worker_id, incarnation))
            case "load", int(running) if registry.get(worker_id):
                registry.update(worker_id, load=Load(running=running))
            case "drain", _ if registry.get(worker_id):
                registry.update(worker_id, state=WorkerState.DRAINING)
            case "remove", RemovalCause() as cause:
                registry.remove(worker_id, cause)
            case "complete", _:
                registry.complete()
            case "take", _:
                delta = pending.take()
                if delta is not None:
                    follower.apply(delta)
            case "watch anew", _:
                pending = PendingChanges(limit=1_000)
                follower = Follower(registry.watch("follower", pending.add))
            case _:
                pass
    delta = pending.take()
    if delta is not None:
        follower.apply(delta)

    assert not pending.lagged
    assert follower.revision == registry.revision
    assert follower.completeness == registry.completeness
    assert sorted(follower.workers.values(), key=lambda each: each.worker_id) == list(registry)


def test_each_change_has_the_next_revision() -> None:
    registry = Registry()
    changes: list[Change] = []
    snapshot = registry.watch("test", changes.append)
    registry.put(worker("w"))
    registry.update("w", load=Load(running=1))
    registry.update("w", load=Load(running=1))
    registry.complete()
    registry.complete()
    registry.remove("w", RemovalCause.LEFT)
    registry.remove("w", RemovalCause.LEFT)
    assert snapshot == Snapshot(0, Completeness.LEARNING, ())
    assert [change.revision for change in changes] == [1, 2, 3, 4]
    assert registry.revision == 4


def test_an_ended_watch_hears_nothing() -> None:
    registry = Registry()
    changes: list[Change] = []
    registry.watch("test", changes.append)
    registry.unwatch("test")
    registry.unwatch("test")
    registry.put(worker("w"))
    assert changes == []


def test_a_watch_that_ends_in_the_middle_of_a_change_disturbs_no_other() -> None:
    registry = Registry()
    changes: list[Change] = []
    registry.watch("first", lambda _: registry.unwatch("first"))
    registry.watch("second", changes.append)
    registry.put(worker("w"))
    assert len(changes) == 1


@pytest.mark.parametrize(
    ("name", "served"),
    [("m", True), ("m-latest", True), ("m-sql", True), ("M", False), ("", False)],
)
def test_a_worker_serves_models_aliases_and_adapters(name: str, served: bool) -> None:
    assert worker("w").serves(name) is served


def test_updating_an_unknown_worker_is_an_error() -> None:
    with pytest.raises(KeyError):
        Registry().update("w", models=(model("m"),))


def changed(revision: int, upserted: Worker) -> Change:
    return Change(revision, Completeness.COMPLETE, upserted=upserted)


def test_repeated_changes_of_one_worker_count_once() -> None:
    pending = PendingChanges(limit=1)
    for revision in range(1, 100):
        pending.add(changed(revision, replace(worker("w"), load=Load(running=revision))))
    assert not pending.lagged
    delta = pending.take()
    assert delta is not None
    assert delta.revision == 99
    assert [each.load.running for each in delta.upserted] == [99]
    assert pending.take() is None


@pytest.mark.parametrize(("workers", "lagged"), [(2, False), (3, False), (4, True)])
def test_more_than_the_limit_lags_for_good(workers: int, lagged: bool) -> None:
    pending = PendingChanges(limit=3)
    for number in range(workers):
        pending.add(changed(number + 1, worker(f"w{number}")))
    assert pending.lagged is lagged
    delta = pending.take()
    assert (delta is None) is lagged
    pending.add(changed(100, worker("late")))
    assert (pending.take() is None) is lagged


def test_removals_count_towards_the_limit() -> None:
    registry = Registry()
    pending = PendingChanges(limit=3)
    registry.watch("slow", pending.add)
    for number in range(4):
        registry.put(worker(f"w{number}"))
        registry.remove(f"w{number}", RemovalCause.LEFT)
    assert pending.lagged
