"""Writes constraints.txt: the exact version of every package that the virtual environment holds.

Run it in an environment that has all extras: `make lock`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints.txt"
HEADER = "# Every package at the version that TokenMesh is tested with. Written by 'make lock'.\n"
UNPINNED = frozenset({"triton"})
"""Each build of torch for CUDA requires one version of it, which the CPU's build does not tell."""


def public_version(requirement: str) -> str:
    """`torch==2.13.0+cpu` as `torch==2.13.0`: the machine that installs chooses the build."""
    return requirement.partition("+")[0]


def main() -> None:
    """Writes the file."""
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    pinned = (
        line
        for line in frozen.splitlines()
        if "==" in line and line.partition("==")[0] not in UNPINNED
    )
    lines = sorted({public_version(line) for line in pinned}, key=str.lower)
    LOCK.write_text(HEADER + "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
