"""Leases by table: every grant, renewal and expiry at given times, TTL 6 s."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.controller.leases import Attachment, LeaseTable, LeaseTerms
from services.mesh.errors import AbortedError, DeadlineError, ProtocolError

TERMS = LeaseTerms(ttl_s=6.0, heartbeat_interval_s=2.0)


@dataclass(frozen=True)
class SecondAttach:
    """Worker "w" attaches as incarnation "a" at 0 s, and once more as below."""

    at_s: float
    incarnation: str
    attachment: Attachment
    takes_over: bool


@pytest.mark.parametrize(
    "case",
    [
        SecondAttach(0.0, "a", Attachment.RECONNECT, True),
        SecondAttach(5.999, "a", Attachment.RECONNECT, True),
        SecondAttach(6.0, "a", Attachment.NEW, False),
        SecondAttach(60.0, "a", Attachment.NEW, False),
        SecondAttach(0.0, "b", Attachment.RESTART, True),
        SecondAttach(5.999, "b", Attachment.RESTART, True),
        SecondAttach(6.0, "b", Attachment.NEW, False),
    ],
    ids=str,
)
def test_a_second_attach_is_told_apart(case: SecondAttach) -> None:
    table = LeaseTable(TERMS)
    first = table.grant("w", "a", "lease-1", hello_number=1, now_s=0.0)
    second = table.grant("w", case.incarnation, "lease-2", hello_number=2, now_s=case.at_s)

    assert first.attachment is Attachment.NEW
    assert first.taken_over is None
    assert second.attachment is case.attachment
    assert (second.taken_over == first.lease) is case.takes_over
    assert table.of_worker("w") == second.lease
    assert table.get("lease-1") is None
    assert len(table) == 1


@pytest.mark.parametrize(
    ("heartbeats_at_s", "asked_at_s", "expired"),
    [
        ([], 5.999, False),
        ([], 6.0, True),
        ([2.0], 7.999, False),
        ([2.0], 8.0, True),
        ([2.0, 4.0, 5.0], 10.999, False),
        ([2.0, 4.0, 5.0], 11.0, True),
        ([5.999], 6.0, False),
    ],
)
def test_a_lease_expires_one_ttl_after_its_last_heartbeat(
    heartbeats_at_s: list[float], asked_at_s: float, expired: bool
) -> None:
    table = LeaseTable(TERMS)
    lease = table.grant("w", "a", "lease-1", hello_number=1, now_s=0.0).lease
    for at_s in heartbeats_at_s:
        lease = table.renew("lease-1", at_s)

    assert table.expire(asked_at_s) == ([lease] if expired else [])
    assert (table.of_worker("w") is None) is expired
    assert table.expire(asked_at_s) == []


def test_a_heartbeat_at_the_ttl_is_too_late() -> None:
    table = LeaseTable(TERMS)
    table.grant("w", "a", "lease-1", hello_number=1, now_s=0.0)
    with pytest.raises(DeadlineError) as caught:
        table.renew("lease-1", 6.0)
    assert caught.value.reason == "LEASE_EXPIRED"


def test_a_lease_that_was_taken_over_cannot_be_renewed() -> None:
    table = LeaseTable(TERMS)
    table.grant("w", "a", "lease-1", hello_number=1, now_s=0.0)
    table.grant("w", "a", "lease-2", hello_number=2, now_s=1.0)
    with pytest.raises(ProtocolError) as caught:
        table.renew("lease-1", 2.0)
    assert caught.value.reason == "LEASE_MISMATCH"
    assert table.renew("lease-2", 2.0).expires_at_s == 8.0


@pytest.mark.parametrize("incarnation", ["a", "b"])
def test_an_older_hello_that_is_granted_late_takes_nothing_over(incarnation: str) -> None:
    table = LeaseTable(TERMS)
    newer = table.grant("w", "b", "lease-2", hello_number=2, now_s=0.0)
    with pytest.raises(AbortedError) as caught:
        table.grant("w", incarnation, "lease-1", hello_number=1, now_s=1.0)
    assert caught.value.reason == "LEASE_SUPERSEDED"
    assert table.of_worker("w") == newer.lease


def test_expiry_takes_only_those_that_are_due() -> None:
    table = LeaseTable(TERMS)
    for number, worker_id in enumerate(["a", "b", "c"]):
        table.grant(worker_id, "i", f"lease-{worker_id}", hello_number=number, now_s=float(number))
    assert [lease.worker_id for lease in table.expire(7.0)] == ["a", "b"]
    assert [lease.worker_id for lease in table.expire(8.0)] == ["c"]


def test_ending_a_lease_frees_the_worker_id() -> None:
    table = LeaseTable(TERMS)
    table.grant("w", "a", "lease-1", hello_number=1, now_s=0.0)
    ended = table.end("lease-1")
    assert ended is not None
    assert ended.worker_id == "w"
    assert table.end("lease-1") is None
    again = table.grant("w", "a", "lease-2", hello_number=2, now_s=1.0)
    assert again.attachment is Attachment.NEW


@pytest.mark.parametrize(
    ("ttl_s", "interval_s", "wrong"),
    [
        (6.0, 2.0, None),
        (4.0, 2.0, None),
        (3.999, 2.0, "twice"),
        (6.0, 0.0, "over 0"),
        (6.0, -1.0, "over 0"),
        (float("nan"), 2.0, "twice"),
        (6.0, float("nan"), "over 0"),
    ],
)
def test_terms_are_checked(ttl_s: float, interval_s: float, wrong: str | None) -> None:
    if wrong is None:
        assert LeaseTerms(ttl_s, interval_s).ttl_s == ttl_s
    else:
        with pytest.raises(ValueError, match=wrong):
            LeaseTerms(ttl_s, interval_s)


def test_default_terms() -> None:
    assert LeaseTerms() == LeaseTerms(ttl_s=6.0, heartbeat_interval_s=2.0)
