"""A worker is in the registry for as long as it holds a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.controller.leases import Attachment, LeaseTerms
from services.controller.membership import Membership
from services.controller.registry import Change, Completeness, Load, RemovalCause, WorkerState
from services.mesh.errors import ExhaustedError
from tests.fakes.workers import model, worker


class Mesh:
    """A membership that started at 0 s with a TTL of 6 s, and all changes that it made."""

    def __init__(self, max_workers: int = 10) -> None:
        self.membership = Membership(LeaseTerms(), started_at_s=0.0, max_workers=max_workers)
        self.changes: list[Change] = []
        self.membership.registry.watch("test", self.changes.append)

    def attach(self, worker_id: str, incarnation: str, lease_id: str, now_s: float) -> Attachment:
        grant = self.membership.attach(
            worker(worker_id, incarnation),
            lease_id,
            hello_number=self.membership.next_hello_number(),
            now_s=now_s,
        )
        return grant.attachment

    def beat(self, lease_id: str, load: Load, now_s: float) -> None:
        self.membership.renew(
            lease_id,
            state=WorkerState.SERVING,
            load=load,
            cached_prefixes=(1, 2),
            now_s=now_s,
            wall_clock_s=1_000_000 + now_s,
        )

    def causes(self) -> list[RemovalCause]:
        return [change.removed.cause for change in self.changes if change.removed is not None]


def test_a_heartbeat_updates_load_and_time() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.beat("lease-1", Load(running=3), 2.0)
    known = mesh.membership.registry.get("w")
    assert known is not None
    assert (known.load, known.cached_prefixes) == (Load(running=3), (1, 2))
    assert known.renewed_at_s == 1_000_002
    assert mesh.membership.expire_due(7.999) == []


def test_a_heartbeat_without_news_is_no_change() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.beat("lease-1", Load(running=3), 2.0)
    before = len(mesh.changes)
    mesh.beat("lease-1", Load(running=3), 4.0)
    assert len(mesh.changes) == before
    known = mesh.membership.registry.get("w")
    assert known is not None
    assert known.renewed_at_s == 1_000_004


def test_a_reconnect_keeps_load_and_age_and_removes_nothing() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.beat("lease-1", Load(running=3), 2.0)
    assert mesh.attach("w", "a", "lease-2", 3.0) is Attachment.RECONNECT
    known = mesh.membership.registry.get("w")
    assert known is not None
    assert known.load == Load(running=3)
    assert mesh.causes() == []


def test_a_restart_replaces_in_one_change() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.beat("lease-1", Load(running=3), 2.0)
    assert mesh.attach("w", "b", "lease-2", 3.0) is Attachment.RESTART
    last = mesh.changes[-1]
    assert last.removed is not None
    assert (last.removed.incarnation, last.removed.cause) == ("a", RemovalCause.REPLACED)
    assert last.upserted is not None
    assert (last.upserted.incarnation, last.upserted.load) == ("b", Load())


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda mesh: mesh.membership.leave("lease-1"), RemovalCause.LEFT),
        (lambda mesh: mesh.membership.expire_early("lease-1"), RemovalCause.EXPIRED),
        (lambda mesh: mesh.membership.expire_due(6.0), RemovalCause.EXPIRED),
    ],
    ids=["left", "found dead", "silent"],
)
def test_removal_causes(end: object, cause: RemovalCause) -> None:
    assert callable(end)
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    end(mesh)
    assert mesh.causes() == [cause]
    assert len(mesh.membership.registry) == 0
    end(mesh)
    assert mesh.causes() == [cause]


def test_what_comes_for_an_ended_lease_changes_nothing() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.attach("w", "b", "lease-2", 1.0)
    before = len(mesh.changes)
    mesh.membership.set_state("lease-1", WorkerState.DRAINING)
    mesh.membership.set_models("lease-1", [model("other")])
    mesh.membership.leave("lease-1")
    assert len(mesh.changes) == before


@pytest.mark.parametrize(
    ("asked_at_s", "completeness"),
    [(0.0, Completeness.LEARNING), (5.999, Completeness.LEARNING), (6.0, Completeness.COMPLETE)],
)
def test_learning_lasts_one_ttl(asked_at_s: float, completeness: Completeness) -> None:
    mesh = Mesh()
    mesh.membership.expire_due(asked_at_s)
    mesh.membership.expire_due(asked_at_s)
    assert mesh.membership.registry.completeness is completeness
    assert len(mesh.changes) == int(completeness is Completeness.COMPLETE)


def test_a_full_controller_refuses_the_unknown_but_not_the_known() -> None:
    mesh = Mesh(max_workers=1)
    mesh.attach("w", "a", "lease-1", 0.0)
    with pytest.raises(ExhaustedError) as caught:
        mesh.attach("x", "a", "lease-2", 1.0)
    assert caught.value.reason == "WORKERS_EXHAUSTED"
    assert mesh.attach("w", "a", "lease-3", 1.0) is Attachment.RECONNECT
    assert mesh.attach("w", "b", "lease-4", 1.0) is Attachment.RESTART


def test_a_worker_that_reattaches_as_draining_is_draining() -> None:
    mesh = Mesh()
    mesh.attach("w", "a", "lease-1", 0.0)
    mesh.membership.attach(
        replace(worker("w", "a"), state=WorkerState.DRAINING),
        "lease-2",
        hello_number=mesh.membership.next_hello_number(),
        now_s=1.0,
    )
    known = mesh.membership.registry.get("w")
    assert known is not None
    assert known.state is WorkerState.DRAINING
