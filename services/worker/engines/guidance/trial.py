"""Tries a grammar where it can do no harm, before it is compiled where it could."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

TRIAL_LIMIT_S = 5.0
"""How long compiling may take. What clients ask for takes milliseconds."""

_SCRIPT = Path(__file__).with_name("trial_process.py")


class TrialError(Exception):
    """A grammar that is not to be compiled here; says why."""


class Trials:
    """Processes that try grammars: one for each thread that does, so that none waits for another.

    A process ends by itself when its pipe does.

    Args:
        vocabulary_size: token ids that a grammar may name.
        limits: what the library is to be given.
    """

    def __init__(self, vocabulary_size: int, limits: Mapping[str, int]) -> None:
        self._command = [
            *(sys.executable, "-I", str(_SCRIPT), str(vocabulary_size), json.dumps(dict(limits)))
        ]
        self._own = threading.local()
        self._started: list[subprocess.Popen[str]] = []

    def run(self, grammar: str) -> None:
        """Returns when the grammar has been compiled elsewhere, or refused there.

        Raises:
            TrialError: it ended the process, or took too long.
        """
        # One that ends may have been at its own end: it lives for so much work only.
        if not self._try(grammar) and not self._try(grammar):
            raise TrialError("compiling it takes more memory or depth than there is")

    def _try(self, grammar: str) -> bool:
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(grammar) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._end(process)
            return False
        readable, _, _ = select.select([process.stdout], [], [], TRIAL_LIMIT_S)
        if not readable:
            self._end(process)
            raise TrialError(f"compiling it takes more than {TRIAL_LIMIT_S:g} s")
        if process.stdout.readline():
            return True
        self._end(process)
        return False

    def _process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._started.append(process)
        return process

    def close(self) -> None:
        """Ends all processes. Nothing is tried any more."""
        for process in self._started:
            process.kill()
            process.wait()

    def _end(self, process: subprocess.Popen[str]) -> None:
        self._own.process = None
        self._started.remove(process)
        process.kill()
        process.communicate()
