"""The short run: a few seconds of fire, of which no client may notice anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.profiles import SHORT
from tests.chaos.run import run

SEED = int(os.environ.get("TOKENMESH_CHAOS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED])
async def test_no_client_notices_a_fault(seed: int, tmp_path: Path) -> None:
    ran = await run(SHORT, seed, tmp_path)
    assert ran.verdict.is_clean, f"{report.text(ran)}\nagain: {report.command(ran)}"
    assert len(ran.verdict.judged) >= SHORT.clients
    assert len(ran.suffered) == len(ran.faults)
