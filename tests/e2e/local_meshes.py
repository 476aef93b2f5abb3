"""Meshes that `tokenmesh up` starts, for tests that need real processes and real Envoy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.cli.notice import MeshNotice, read_notice

TOKENMESH = (sys.executable, "-P", "-m", "services.cli.main")
SCRIPTED = ("--engine", "scripted")
LIMIT_S = 100.0
POLL_INTERVAL_S = 0.05


class GivenUpError(AssertionError):
    """A condition did not come true."""


def wait_until(condition: str, holds: Callable[[], bool], *, limit_s: float = LIMIT_S) -> None:
    """Returns once `holds()` is true."""
    deadline_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise GivenUpError(f"not within {limit_s:.0f} s: {condition}")
        time.sleep(POLL_INTERVAL_S)


@dataclass
class Up:
    """A `tokenmesh up` that was started."""

    process: subprocess.Popen[str]
    folder: Path
    ready_file: Path

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return (self.folder / "output").read_text()

    def until_ready(self) -> MeshNotice:
        """The notice of the mesh, once it is ready."""
        wait_until("mesh is ready", lambda: self.ready_file.exists() or self.has_ended())
        notice = read_notice(self.ready_file)
        if notice is None:
            raise GivenUpError(f"tokenmesh up ended:\n{self.output}")
        return notice

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(LIMIT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end. The exit code."""
        self.process.send_signal(number)
        return self.wait()


@contextlib.contextmanager
def starting(folder: Path, *options: str, port: int = 0) -> Iterator[Up]:
    """Runs `tokenmesh up` with files in `folder`, without a terminal; ends it in any case."""
    folder.mkdir(parents=True, exist_ok=True)
    ready_file = folder / "ready.json"
    command = [*TOKENMESH, "up", "--port", str(port), "--run-dir", str(folder / "run")]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready_file), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        yield Up(process, folder, ready_file)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # Its children die with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(
    *arguments: str, stdin: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a `tokenmesh` command to its end, in `folder`."""
    return subprocess.run(
        [*TOKENMESH, *arguments],
        check=False,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
