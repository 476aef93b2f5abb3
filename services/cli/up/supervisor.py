"""Child processes that live and die together.

Each child has a session of its own, so that a Ctrl-C on the terminal reaches this process only and
each child gets exactly one signal, from here. On Linux the children die if this process is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.cli.client_key import API_KEY_VARIABLE
from services.cli.up.plan import ProcessPlan
from services.mesh.options import API_KEYS_FILE_VARIABLE, API_KEYS_VARIABLE
from services.mesh.process import EXIT_CANNOT_START

POLL_INTERVAL_S = 0.02
KILL_LIMIT_S = 1.0
LOG_TAIL_LINES = 30
LOG_TAIL_BYTES = 64 * 1024

# What a child says last must be in its log, and be plain text.
LOGGING_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TYPER_STANDARD_TRACEBACK": "1"}

KEY_VARIABLES = frozenset({API_KEYS_VARIABLE, API_KEYS_FILE_VARIABLE, API_KEY_VARIABLE})

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Found = TypeVar("Found")


class ChildError(Exception):
    """A child ended although nobody asked it to, or did not get ready in time."""

    def __init__(self, plan: ProcessPlan, what: str, *, exit_code: int | None = None) -> None:
        super().__init__(f"{plan.name} {what}")
        self.name = plan.name
        self._job = plan.job
        self.exit_code = exit_code
        self.log_file = plan.log_file
        self.log_tail = log_tail(plan.log_file)

    @property
    def refusal(self) -> str | None:
        """What the child said, in its last line, keeps it from starting; None if it said none."""
        if self.exit_code != EXIT_CANNOT_START or not self.log_tail:
            return None
        return self.log_tail.splitlines()[-1].removeprefix(f"{self._job}: ")


@dataclass(frozen=True)
class Child:
    """A process that was started."""

    plan: ProcessPlan
    process: asyncio.subprocess.Process

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None


def describe_exit(exit_code: int) -> str:
    """ "ended with exit code 3", or the name of the signal that ended it."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"


def log_tail(log_file: Path) -> str:
    """The last lines of a log file, without blank ones at its end."""
    try:
        with log_file.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-LOG_TAIL_LINES:])


def _environment() -> dict[str, str]:
    """This process's, without the keys: who needs them gets them by its plan."""
    return {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}


def _die_with(parent_id: int) -> None:
    """Runs in the child before its program: ends it when its parent ends, however that ends."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_id:
            os._exit(1)


class Supervisor:
    """Starts children in stages, watches them, and stops them in the reverse order.

    `stop` must be awaited in any case, after the task group of the watches has ended.
    """

    def __init__(self) -> None:
        self._tasks: asyncio.TaskGroup | None = None
        self._stages: list[list[Child]] = []
        self._can_do_without: Callable[[Child, ChildError], bool] = lambda _child, _failure: False

    def watch_in(self, tasks: asyncio.TaskGroup) -> None:
        """Runs the watches in this group: a child that ends unasked fails it with a ChildError."""
        self._tasks = tasks

    def ask_whether_to_end(self, can_do_without: Callable[[Child, ChildError], bool]) -> None:
        """From now on a child that ends fails the group only if the others cannot do without it."""
        self._can_do_without = can_do_without

    @property
    def children(self) -> list[Child]:
        """All that were started, in order."""
        return [child for stage in self._stages for child in stage]

    async def start(self, plans: Sequence[ProcessPlan]) -> list[Child]:
        """Starts the next stage: processes that do not depend on each other."""
        if self._tasks is None:
            raise RuntimeError("watch_in comes before start")
        stage: list[Child] = []
        self._stages.append(stage)
        parent_id = os.getpid()
        for plan in plans:
            if plan.ready_file is not None:
                plan.ready_file.unlink(missing_ok=True)
            with plan.log_file.open("wb") as log_file:
                process = await asyncio.create_subprocess_exec(
                    *plan.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    env={**_environment(), **LOGGING_ENVIRONMENT, **plan.secrets},
                    start_new_session=True,
                    preexec_fn=lambda: _die_with(parent_id),
                )
            child = Child(plan, process)
            stage.append(child)
            self._tasks.create_task(self._watch(child), name=f"watch {plan.name}")
        return stage

    async def _watch(self, child: Child) -> None:
        exit_code = await child.process.wait()
        failure = ChildError(child.plan, describe_exit(exit_code), exit_code=exit_code)
        if not self._can_do_without(child, failure):
            raise failure

    async def until_ready(
        self, child: Child, probe: Callable[[Child], Awaitable[Found | None]]
    ) -> Found:
        """What `probe` returns, once that is not None.

        Raises:
            ChildError: it took longer than the plan allows.
        """
        try:
            async with asyncio.timeout(child.plan.start_limit_s):
                # Another process gets ready: there is no event to wait for.
                while (found := await probe(child)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_INTERVAL_S)
                return found
        except TimeoutError:
            what = f"was not ready after {child.plan.start_limit_s:.0f} s"
            raise ChildError(child.plan, what) from None

    async def stop(self) -> list[str]:
        """Ends all that still runs, last stage first. Returns the names of those it had to kill."""
        killed: list[str] = []
        for stage in reversed(self._stages):
            running = [child for child in stage if child.running]
            killed += [name for name in await asyncio.gather(*map(_end, running)) if name]
        return killed


async def _end(child: Child) -> str | None:
    """Ends one child: asks, waits for as long as its plan says, then kills it and its children."""
    with suppress(ProcessLookupError):
        child.process.terminate()
    with suppress(TimeoutError):
        async with asyncio.timeout(child.plan.stop_limit_s):
            await child.process.wait()
            return None
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)
    # The kernel may take long to free a large memory: that is no reason to leave others running.
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await child.process.wait()
    return child.plan.name
