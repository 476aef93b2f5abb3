"""Shows how a mesh comes up: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich import progress
from rich.console import Console
from rich.text import Text

from services.cli.up.supervisor import log_tail

# On a terminal a line is drawn over; elsewhere each stays.
TERMINAL_INTERVAL_S = 0.5
LINE_INTERVAL_S = 15.0
MAX_NOTE_CHARACTERS = 60

_TIMESTAMP = re.compile(r"^\d{4}-\S+ ")


@dataclass(frozen=True)
class _Awaited:
    """A part that is not there yet."""

    what: str
    log_file: Path | None
    since_s: float
    line: progress.TaskID | None


class StartProgress:
    """One line for each part that is awaited, and one that stays for each that is there.

    Without a terminal nothing moves: a line when a part is started, now and then a line on what it
    says, and a line when it is there.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._awaited: dict[str, _Awaited] = {}
        self._live = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> StartProgress:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def awaiting(self, name: str, what: str, log_file: Path | None = None) -> None:
        """A part is being started or waited for; its log tells how it gets on."""
        line = None
        if self._console.is_terminal:
            line = self._live.add_task(f"{name}  {what}", total=None)
        else:
            self._console.print(Text(f"{name}: {what} …"))
        self._awaited[name] = _Awaited(what, log_file, time.monotonic(), line)

    def ready(self, name: str, detail: str) -> None:
        """The part is there."""
        part = self._awaited.pop(name)
        if part.line is not None:
            self._live.remove_task(part.line)
        took_s = time.monotonic() - part.since_s
        self._console.print(
            Text.assemble(("✓ ", "green"), f"{name:<12}", (f"{took_s:5.1f} s  {detail}", "dim"))
        )

    async def tell(self) -> None:
        """Tells what awaited parts log, until cancelled."""
        interval_s = TERMINAL_INTERVAL_S if self._console.is_terminal else LINE_INTERVAL_S
        while True:
            await asyncio.sleep(interval_s)
            for name, part in self._awaited.items():
                if part.log_file is None:
                    continue
                logged = _TIMESTAMP.sub("", log_tail(part.log_file).rpartition("\n")[2])
                logged = logged[:MAX_NOTE_CHARACTERS]
                if part.line is not None:
                    self._live.update(part.line, description=f"{name}  {part.what}  {logged}")
                else:
                    waited_s = time.monotonic() - part.since_s
                    self._console.print(Text(f"{name}: after {waited_s:.0f} s: {logged or '…'}"))
