"""Prints what child processes add to their log files, line by line, as it comes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TextIO

from rich.console import Console
from rich.text import Text

from services.cli.up.supervisor import Supervisor

POLL_INTERVAL_S = 0.2


class LogLines:
    """The lines of one log file, each once it is whole."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = ""

    def take(self) -> list[str]:
        """The lines that were ended since the last call."""
        *whole, self._begun = (self._begun + self._file.read()).split("\n")
        return whole


async def follow(supervisor: Supervisor, console: Console) -> None:
    """Prints each line after the name of its process, until cancelled."""
    logs: dict[str, LogLines] = {}
    with ExitStack() as files:
        while True:
            for child in supervisor.children:
                name = child.plan.name
                if name not in logs:
                    file = child.plan.log_file.open(encoding="utf-8", errors="replace")
                    logs[name] = LogLines(files.enter_context(file))
                for line in logs[name].take():
                    console.print(Text.assemble((f"{name} | ", "dim"), Text.from_ansi(line)))
            await asyncio.sleep(POLL_INTERVAL_S)
