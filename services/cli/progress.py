"""Shows how a mesh comes up: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress
from rich.console import Console


class StartProgress:
    """One line for each part that is awaited, and one that stays for each that is there.

    Without a terminal nothing moves: a line when a part is started, a line when it is there.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at_s: dict[str, float] = {}
        self._tasks: dict[str, progress.TaskID] = {}
        self._live = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
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

    def awaiting(self, name: str, what: str) -> None:
        """A part is being started or waited for."""
        self._started_at_s[name] = time.monotonic()
        if self._console.is_terminal:
            self._tasks[name] = self._live.add_task(f"{name}  [dim]{what}[/]", total=None)
        else:
            self._console.print(f"{name}: {what} …", markup=False, highlight=False)

    def ready(self, name: str, detail: str) -> None:
        """The part is there."""
        took_s = time.monotonic() - self._started_at_s[name]
        if name in self._tasks:
            self._live.remove_task(self._tasks.pop(name))
        self._console.print(
            f"[green]✓[/] {name:<12} [dim]{took_s:5.1f} s  {detail}[/]", highlight=False
        )
