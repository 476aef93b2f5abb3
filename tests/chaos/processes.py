"""One process of the mesh: started, hit by faults, started again. Every life is kept."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from services.mesh.process import ReadyNotice, read_ready

READY_LIMIT_S = 90.0
END_LIMIT_S = 60.0
POLL_S = 0.05

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass
class Life:
    """One run of a process. Times are in seconds of the monotonic clock."""

    process: asyncio.subprocess.Process
    began_s: float
    ready: ReadyNotice | None = None
    ended_s: float | None = None
    is_asked_to_end: bool = False
    rss_kib: list[tuple[float, int]] = field(default_factory=list)
    """Resident memory, by the time of the sample."""


class PartProcess:
    """A service that can be started again at the same address.

    Args:
        command: makes the command line; it is told where the ready file is to be written.
        on_end: called with a life that ended although nobody asked it to.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        command: Callable[[Path], Sequence[str]],
        on_end: Callable[[str], None],
    ) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.log_file = folder / f"{name}.log"
        self._ready_file = folder / f"{name}.ready.json"
        self._command = command
        self._on_end = on_end
        self._watches: list[asyncio.Task[None]] = []

    @property
    def life(self) -> Life:
        """The latest life."""
        return self.lives[-1]

    @property
    def is_running(self) -> bool:
        """Whether its latest life has not ended."""
        return bool(self.lives) and self.life.ended_s is None

    async def start(self) -> None:
        """Starts it. It is not ready yet."""
        self._ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command(self._ready_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        life = Life(process, time.monotonic())
        self.lives.append(life)
        self._watches.append(asyncio.create_task(self._watch(life)))

    async def until_ready(self) -> ReadyNotice:
        """Where its latest life is reached.

        Raises:
            AssertionError: it has ended, or is not ready in time.
        """
        life = self.life
        deadline_s = time.monotonic() + READY_LIMIT_S
        while (notice := read_ready(self._ready_file)) is None:
            if life.ended_s is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"{self.name} did not get ready:\n{self.log_tail()}")
            await asyncio.sleep(POLL_S)
        life.ready = notice
        return notice

    def send(self, number: signal.Signals) -> None:
        """Sends its latest life a signal; one that ends it is asked for."""
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.life.is_asked_to_end = True
        with suppress(ProcessLookupError):
            os.kill(self.life.process.pid, number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends its latest life and waits for that; kills it where a signal does not help.

        Raises:
            AssertionError: it had to be killed.
        """
        if not self.is_running:
            return
        self.send(number)
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await self.life.process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.life.process.wait()
            raise AssertionError(
                f"{self.name} did not end within {END_LIMIT_S:.0f} s of {number.name}:\n"
                f"{self.log_tail()}"
            ) from None

    def sample_memory(self) -> None:
        """Notes how much memory it holds."""
        if self.is_running:
            rss_kib = resident_kib(self.life.process.pid)
            if rss_kib:
                self.life.rss_kib.append((time.monotonic(), rss_kib))

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-30:])

    async def _watch(self, life: Life) -> None:
        exit_code = await life.process.wait()
        life.ended_s = time.monotonic()
        if not life.is_asked_to_end:
            self._on_end(f"{self.name} ended by itself, with {exit_code}:\n{self.log_tail()}")


def resident_kib(process_id: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def _die_with(parent_id: int) -> Callable[[], None]:
    """Runs in the child: has it end when this process is killed."""

    def in_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_id:
            os._exit(1)

    return in_child
