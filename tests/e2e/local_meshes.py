"""`tokenmesh` commands as processes: `up`, while it runs, and those that end by themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.cli.up.notice import MeshNotice, read_notice
from tests.e2e.processes import Process

TOKENMESH = (sys.executable, "-P", "-m", "services.cli.main")
SCRIPTED = ("--engine", "scripted")
RUN_LIMIT_S = 90.0


@dataclass
class Up:
    """A `tokenmesh up` that was started."""

    process: Process
    ready_file: Path

    def until_ready(self) -> MeshNotice:
        """The notice of the mesh, once it is ready."""
        return self.process.until("the mesh was ready", lambda: read_notice(self.ready_file))


@contextmanager
def starting(folder: Path, *options: str) -> Iterator[Up]:
    """Runs `tokenmesh up` on a free port, with files in `folder`; ends it in any case."""
    folder.mkdir(parents=True, exist_ok=True)
    ready_file = folder / "ready.json"
    command = [*TOKENMESH, "up", "--port", "0", "--run-dir", str(folder / ".run" / "mesh")]
    process = Process([*command, "--ready-file", str(ready_file), *options], folder / "up.log")
    try:
        yield Up(process, ready_file)
    finally:
        process.stop()


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
        timeout=RUN_LIMIT_S,
    )
