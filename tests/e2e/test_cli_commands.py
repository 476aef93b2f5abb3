"""The commands that ask a mesh that runs: models, workers, drain, resume and chat."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.local_meshes import SCRIPTED, TOKENMESH, run, starting
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.timeout(240)

TWO_SLOW_WORKERS = ("--workers", "2", "--", "--scripted-token-interval-ms", "50")
NOBODY = "127.0.0.1:1"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a mesh of two slow workers was started."""
    path = tmp_path_factory.mktemp("commands")
    with starting(path, *SCRIPTED, "--model-names", "parrot", *TWO_SLOW_WORKERS) as up:
        up.until_ready()
        yield path


def test_models_are_listed(folder: Path) -> None:
    result = run("models", folder=folder)
    assert result.returncode == 0
    header, row = result.stdout.splitlines()
    assert header.split()[0] == "MODEL"
    assert row.split()[0] == "parrot"
    assert row.split()[-1] == "2"


def test_models_as_json(folder: Path) -> None:
    (served,) = json.loads(run("models", "--json", folder=folder).stdout)["models"]
    assert served["model"]["name"] == "parrot"
    assert served["serving_workers"] == 2


def test_workers_are_listed(folder: Path) -> None:
    result = run("workers", folder=folder)
    assert result.returncode == 0
    _, *rows = result.stdout.splitlines()
    assert [row.split()[:2] for row in rows] == [["worker-1", "serving"], ["worker-2", "serving"]]


def test_workers_of_a_model_that_nobody_serves(folder: Path) -> None:
    result = run("workers", "--model", "other", folder=folder)
    assert (result.returncode, result.stdout) == (0, "No worker serves other.\n")


def test_a_drained_worker_is_listed_so_until_it_resumes(folder: Path) -> None:
    def states() -> dict[str, str]:
        listed = json.loads(run("workers", "--json", folder=folder).stdout)["workers"]
        return {worker["worker_id"]: worker["state"] for worker in listed}

    drained = run("drain", "worker-1", "--grace", "5", folder=folder)
    assert (drained.returncode, drained.stderr) == (0, "")
    assert drained.stdout.startswith("worker-1 drains")
    wait_for("worker-1 drains", lambda: states()["worker-1"] == "WORKER_STATE_DRAINING")
    assert states()["worker-2"] == "WORKER_STATE_SERVING"

    resumed = run("resume", "worker-1", folder=folder)
    assert (resumed.returncode, resumed.stdout) == (0, "worker-1 serves.\n")
    wait_for("worker-1 serves", lambda: states()["worker-1"] == "WORKER_STATE_SERVING")


@pytest.mark.parametrize("command", ["drain", "resume"])
def test_a_worker_that_is_not_there_is_one_line(folder: Path, command: str) -> None:
    result = run(command, "worker-9", folder=folder)
    assert result.returncode == 1
    assert re.fullmatch(r"tokenmesh: .*worker-9.*\n", result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "--url", f"http://{NOBODY}"),
        ("chat", "--url", NOBODY, "hello"),
        ("workers", "--controller", NOBODY),
        ("drain", "worker-1", "--controller", NOBODY),
    ],
)
def test_nobody_answers_is_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"tokenmesh: nobody answers at {NOBODY}")
    assert result.stderr.count("\n") == 1


def test_a_question_as_an_argument_is_answered(folder: Path) -> None:
    result = run("chat", "--max-tokens", "5", "--seed", "1", "Hello", folder=folder)
    assert result.returncode == 0
    assert result.stdout.strip()
    assert re.search(r"5 tokens, [\d.]+ tokens/s, first after [\d.]+ s, cut short", result.stderr)


def test_a_question_through_a_pipe_is_answered(folder: Path) -> None:
    options = ("chat", "--quiet", "--max-tokens", "5", "--seed", "1")
    result = run(*options, stdin="Hello\n", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == run(*options, "Hello", folder=folder).stdout


def test_an_empty_question_is_one_line(folder: Path) -> None:
    result = run("chat", stdin=" \n", folder=folder)
    assert (result.returncode, result.stderr) == (2, "tokenmesh: the question is empty\n")


def test_an_unknown_model_is_one_line(folder: Path) -> None:
    result = run("chat", "--model", "nothing", "Hello", folder=folder)
    assert result.returncode == 1
    assert re.fullmatch(r"tokenmesh: .*nothing.*\n", result.stderr)


class Terminal:
    """`tokenmesh chat` in a terminal of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._master, slave = pty.openpty()
        self.screen = ""
        self.process = subprocess.Popen(
            [*TOKENMESH, "chat", *options],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def _look(self) -> None:
        while True:
            try:
                read = os.read(self._master, 65536)
            except OSError:
                return
            if not read:
                return
            # Terminals answer when asked where the cursor is.
            if b"\x1b[6n" in read:
                os.write(self._master, b"\x1b[1;1R")
            self.screen += ESCAPES.sub("", read.decode(errors="replace"))

    def until(self, pattern: str) -> None:
        """Waits for what matches since the last time, and forgets what came before it."""

        def seen() -> bool:
            self._look()
            return re.search(pattern, self.screen, re.DOTALL) is not None

        try:
            wait_for(f"terminal shows {pattern!r}", seen)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.screen}") from None
        match = re.search(pattern, self.screen, re.DOTALL)
        assert match is not None
        self.screen = self.screen[match.end() :]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """The exit code."""

        def ended() -> bool:
            self._look()
            return self.process.poll() is not None

        wait_for("chat ends", ended)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    opened = Terminal(folder, "--max-tokens", "100")
    yield opened
    opened.close()


def test_a_conversation_in_a_terminal(terminal: Terminal) -> None:
    terminal.until("parrot")
    terminal.until("›")
    terminal.type("/help\r")
    terminal.until("/system TEXT.*›")
    terminal.type("/nonsense\r")
    terminal.until("/nonsense is no order.*›")
    terminal.type("/system Be brief.\r")
    terminal.until("told this.*›")
    terminal.type("Hello\r")
    # A slow answer: it is interrupted while it comes, and the conversation goes on.
    terminal.until(r"([a-z]+ ){4}")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("interrupted.*›")
    terminal.type("/reset\r")
    terminal.until("forgotten.*›")
    terminal.type("\x04")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.screen


def test_exit_leaves(terminal: Terminal) -> None:
    terminal.until("›")
    terminal.type("/exit\r")
    assert terminal.end() == 0
