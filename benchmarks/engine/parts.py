"""Parts of a results file: what one measuring command took. A later one of a name replaces it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

FOLDER = Path("build/bench-engine/parts").absolute()
LOGS = FOLDER.parent / "logs"
PACKAGES = ("tokenmesh", "torch", "transformers", "grpcio", "uvloop")

Part = dict[str, Any]


def begin(kind: str, **what: Any) -> Part:
    """A part that has no runs yet: what is measured, when, and on what."""
    if machine.is_busy():
        print("This machine is busy with something else: the numbers will tell more of that.")
    return {
        "kind": kind,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(PACKAGES),
        **what,
        "is_complete": False,
        "runs": [],
    }


def keep(part: Mapping[str, Any], name: str) -> Path:
    """Writes a part, which may not be complete yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = FOLDER / f"{name}.json"
    target.write_text(json.dumps(part, indent=1) + "\n")
    return target


def read_all() -> Sequence[Part]:
    """All parts that are there, oldest first."""
    parts = [json.loads(file.read_text()) for file in FOLDER.glob("*.json")]
    return sorted(parts, key=lambda part: part["taken_at"])
