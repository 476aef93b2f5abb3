"""Whether a suspected worker is dead, by table: suspected at 10 s, heartbeats every 2 s."""

from __future__ import annotations

import pytest

from services.controller.suspicion import Dialled, Verdict, judge

TRUST, AGAIN, EXPIRE = Verdict.TRUST, Verdict.DIAL_AGAIN, Verdict.EXPIRE


@pytest.mark.parametrize(
    ("dialled", "attached", "renewed_at_s", "now_s", "verdict"),
    [
        # It answers: whatever was reported is not for the lease to judge.
        (Dialled.ANSWERED, True, 9.0, 10.1, TRUST),
        (Dialled.ANSWERED, False, 5.0, 10.1, TRUST),
        # The process is gone.
        (Dialled.REFUSED, False, 9.9, 10.1, EXPIRE),
        (Dialled.REFUSED, False, 10.05, 10.1, EXPIRE),
        # Its stream is alive, so the way to its address is in doubt.
        (Dialled.REFUSED, True, 9.9, 10.1, AGAIN),
        (Dialled.REFUSED, True, 10.05, 10.1, TRUST),
        (Dialled.REFUSED, True, 9.0, 12.0, EXPIRE),
        # Stopped, or cut off: only heartbeats tell.
        (Dialled.SILENT, True, 9.9, 11.1, AGAIN),
        (Dialled.SILENT, True, 9.0, 11.999, AGAIN),
        (Dialled.SILENT, True, 9.0, 12.0, EXPIRE),
        (Dialled.SILENT, False, 9.0, 11.0, AGAIN),
        (Dialled.SILENT, False, 9.0, 12.0, EXPIRE),
        (Dialled.SILENT, True, 10.0, 11.0, AGAIN),
        (Dialled.SILENT, True, 10.5, 11.0, TRUST),
    ],
)
def test_verdict(
    dialled: Dialled, attached: bool, renewed_at_s: float, now_s: float, verdict: Verdict
) -> None:
    assert (
        judge(
            dialled,
            attached=attached,
            suspected_at_s=10.0,
            renewed_at_s=renewed_at_s,
            now_s=now_s,
            heartbeat_interval_s=2.0,
        )
        is verdict
    )
