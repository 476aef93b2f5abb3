"""The life of a local mesh: start, say so, run until a signal or a death, end all of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from services.cli.up import announcement, log_following, notice, plan
from services.cli.up.local_mesh import LocalMesh
from services.cli.up.progress import StartProgress
from services.cli.up.supervisor import Child, ChildError, Supervisor
from services.mesh.errors import StartError
from services.mesh.process import EXIT_CANNOT_START

EXIT_PROCESS_DIED = 1


class StopRequested(Exception):  # noqa: N818 - it is no error
    """Somebody sent a signal that ends the mesh."""


class StopSignals:
    """Waits for a signal that ends the mesh. Further ones change nothing: the end is bounded."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._received = asyncio.Event()
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            # nohup has it ignored, to outlive the terminal.
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._received.is_set():
            self._console.print(f"\nStopping ({number.name}) …", highlight=False)
            self._received.set()

    async def wait(self) -> NoReturn:
        """Raises StopRequested when the first signal comes."""
        await self._received.wait()
        raise StopRequested


async def run(
    options: plan.MeshOptions,
    console: Console,
    *,
    ready_file: Path | None,
    verbose: bool,
    keep_going: bool,
) -> int:
    """Runs a mesh to its end. Returns the exit code: 0 if a signal ended it."""
    targets_file = options.run_folder / notice.TARGETS_FILE
    notice_files = [options.run_folder / notice.NOTICE_FILE, *([ready_file] if ready_file else [])]
    signals = StopSignals(console)
    supervisor = Supervisor()
    exit_code = 0

    def goes_on_without(child: Child, failure: ChildError) -> bool:
        """Whether there are others that do its job. Tells of the loss."""
        job = child.plan.job
        left = [each for each in supervisor.children if each.plan.job == job and each.running]
        if not left:
            return False
        announcement.print_failure(console, failure)
        console.print(f"The mesh goes on with {len(left)} of its {job}s.", highlight=False)
        return True

    try:
        async with asyncio.TaskGroup() as tasks:
            supervisor.watch_in(tasks)
            tasks.create_task(signals.wait())
            if verbose:
                tasks.create_task(log_following.follow(supervisor, console))
            with StartProgress(console) as progress:
                telling = tasks.create_task(progress.tell())
                mesh = await LocalMesh(options, supervisor, progress).start()
                telling.cancel()
            notice.write_prometheus_targets(targets_file, mesh.processes)
            for file in notice_files:
                notice.write_notice(file, mesh)
            announcement.print_ready(console, mesh)
            if keep_going:
                supervisor.ask_whether_to_end(goes_on_without)
    except* StopRequested:
        pass
    except* (ChildError, StartError) as failures:
        exit_code = max(_report(console, failure) for failure in _leaves(failures))
    finally:
        for file in (*notice_files, targets_file):
            file.unlink(missing_ok=True)
        for name in await supervisor.stop():
            console.print(f"{name} did not end in time and was killed.", highlight=False)
        console.print("Stopped.")
    return exit_code


def _report(console: Console, failure: BaseException) -> int:
    """Prints what ended the mesh. Returns the exit code for it."""
    if isinstance(failure, ChildError):
        announcement.print_failure(console, failure)
        return EXIT_PROCESS_DIED if failure.refusal is None else EXIT_CANNOT_START
    console.print(f"tokenmesh: {failure}", markup=False, highlight=False)
    return EXIT_CANNOT_START


def _leaves(failures: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group, and in the groups in it."""
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(failure)
        else:
            yield failure
