"""Prints what processes add to their log files, line by line, as it comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console
from rich.text import Text

POLL_INTERVAL_S = 0.2


async def follow(name: str, log_file: Path, console: Console) -> None:
    """Prints each line of the file after the name. Ends when cancelled."""
    with log_file.open(encoding="utf-8", errors="replace") as file:
        begun = ""
        while True:
            begun += await asyncio.to_thread(file.read)
            *whole, begun = begun.split("\n")
            for line in whole:
                console.print(Text.assemble((f"{name} | ", "dim"), Text.from_ansi(line)))
            await asyncio.sleep(POLL_INTERVAL_S)
