"""The supervisor, with small Python programs for children."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.cli.up.plan import ProcessPlan
from services.cli.up.supervisor import Child, ChildError, Supervisor, log_tail

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
NOTES_ITS_END = """
import signal, sys, time
def end(*_):
    with open({log!r}, "a") as file: file.write({name!r} + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


def planned(
    folder: Path, name: str, program: str, *, start_limit_s: float = 60, stop_limit_s: float = 60
) -> ProcessPlan:
    return ProcessPlan(
        name=name,
        job="test",
        command=(sys.executable, "-c", program),
        ready_file=None,
        log_file=folder / f"{name}.log",
        start_limit_s=start_limit_s,
        stop_limit_s=stop_limit_s,
    )


async def said_up(child: Child) -> bool | None:
    return True if "up" in log_tail(child.plan.log_file) else None


async def never(child: Child) -> None:
    return None


class EndedError(Exception):
    """The test has seen enough."""


async def supervise(
    life: Callable[[Supervisor], Awaitable[None]],
) -> tuple[list[Exception], list[str]]:
    """Runs `life`, then stops its children: which failed, and whom it had to kill."""
    supervisor = Supervisor()
    failures: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            supervisor.watch_in(tasks)
            await life(supervisor)
            raise EndedError
    except* EndedError:
        pass
    except* ChildError as group:
        failures = list(group.exceptions)
    return failures, await supervisor.stop()


async def failure_of(life: Callable[[Supervisor], Awaitable[None]]) -> ChildError:
    """The one failure that ends `life`, which must not return by itself."""
    (failure,), killed = await supervise(life)
    assert isinstance(failure, ChildError)
    assert killed == []
    return failure


async def forever() -> None:
    await asyncio.Event().wait()


def running(process_id: int) -> bool:
    """Whether the process has not ended, be it that nobody has reaped it yet."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def test_stages_stop_in_reverse_order(tmp_path: Path) -> None:
    ends = tmp_path / "ends"

    async def life(supervisor: Supervisor) -> None:
        for name in ("first", "second", "third"):
            program = NOTES_ITS_END.format(log=str(ends), name=name)
            (child,) = await supervisor.start([planned(tmp_path, name, program)])
            await supervisor.until_ready(child, said_up)

    assert await supervise(life) == ([], [])
    assert ends.read_text().split() == ["third", "second", "first"]


async def test_a_child_that_ends_is_named_with_its_exit_code_and_log(tmp_path: Path) -> None:
    others: list[Child] = []

    async def life(supervisor: Supervisor) -> None:
        others.extend(await supervisor.start([planned(tmp_path, "other", SLEEPS)]))
        program = "import sys; print('the reason'); sys.exit(7)"
        await supervisor.start([planned(tmp_path, "failing", program)])
        await forever()

    failure = await failure_of(life)
    assert str(failure) == "failing ended with exit code 7"
    assert failure.log_tail == "the reason"
    assert failure.refusal is None
    assert others[0].process.returncode == -signal.SIGTERM


async def test_a_child_that_is_killed_is_named_with_the_signal(tmp_path: Path) -> None:
    async def life(supervisor: Supervisor) -> None:
        (child,) = await supervisor.start([planned(tmp_path, "victim", SLEEPS)])
        await supervisor.until_ready(child, said_up)
        child.process.send_signal(signal.SIGKILL)
        await forever()

    assert str(await failure_of(life)) == "victim was ended by SIGKILL"


async def test_exit_code_2_says_why_in_the_last_line(tmp_path: Path) -> None:
    async def life(supervisor: Supervisor) -> None:
        program = "import sys; print('noise'); print('test: the port is taken\\n'); sys.exit(2)"
        await supervisor.start([planned(tmp_path, "failing", program)])
        await forever()

    failure = await failure_of(life)
    assert failure.refusal == "the port is taken"


async def test_a_child_that_does_not_get_ready_is_named(tmp_path: Path) -> None:
    async def life(supervisor: Supervisor) -> None:
        plan = planned(tmp_path, "slow", SLEEPS, start_limit_s=0.2)
        (child,) = await supervisor.start([plan])
        await supervisor.until_ready(child, never)

    assert "slow was not ready after" in str(await failure_of(life))


async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(
    tmp_path: Path,
) -> None:
    grandchild_file = tmp_path / "grandchild"
    program = f"""
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}])
with open({str(grandchild_file)!r}, "w") as file: file.write(str(grandchild.pid))
exec({IGNORES_SIGTERM!r})
"""

    async def life(supervisor: Supervisor) -> None:
        stubborn = planned(tmp_path, "stubborn", program, stop_limit_s=0.2)
        meek = planned(tmp_path, "meek", SLEEPS)
        for child in await supervisor.start([stubborn, meek]):
            await supervisor.until_ready(child, said_up)

        async def child_ignores(child: Child) -> bool | None:
            return True if log_tail(child.plan.log_file).count("up") == 2 else None

        await supervisor.until_ready(supervisor.children[0], child_ignores)

    assert await supervise(life) == ([], ["stubborn"])
    grandchild_id = int(grandchild_file.read_text())
    while running(grandchild_id):
        await asyncio.sleep(0.01)


async def test_a_ctrl_c_on_the_terminal_does_not_reach_children(tmp_path: Path) -> None:
    async def life(supervisor: Supervisor) -> None:
        (child,) = await supervisor.start([planned(tmp_path, "apart", SLEEPS)])
        assert os.getsid(child.process.pid) == child.process.pid

    assert await supervise(life) == ([], [])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the end")
async def test_children_die_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent_program = f"""
import asyncio, pathlib, sys
from services.cli.up.plan import ProcessPlan
from services.cli.up.supervisor import Supervisor
async def main():
    supervisor = Supervisor()
    async with asyncio.TaskGroup() as tasks:
        supervisor.watch_in(tasks)
        plan = ProcessPlan("child", "test", (sys.executable, "-c", {SLEEPS!r}), None,
            pathlib.Path({str(tmp_path / "child.log")!r}), 60, 60)
        (child,) = await supervisor.start([plan])
        print(child.process.pid, flush=True)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent_program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child_id = int(await asyncio.to_thread(parent.stdout.readline))
        assert running(child_id)
        parent.kill()
    while running(child_id):
        await asyncio.sleep(0.01)
