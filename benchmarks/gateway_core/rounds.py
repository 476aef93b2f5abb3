"""Takes the measurements, checkouts in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import mesh
from benchmarks.gateway_core.cases import Case, Setup
from benchmarks.load import AnswerError
from benchmarks.machine import load_average
from benchmarks.mesh import MeshStartError
from benchmarks.runs import Run, Subject, take
from services.cli.up.notice import MeshNotice


class Rounds:
    """Several rounds of every case of a setup.

    Args:
        checkouts: where the code of each is, by name. The first is the one that must do everything.
    """

    def __init__(
        self, checkouts: Mapping[str, Path], *, concurrency: int, rounds: int, duration_s: float
    ) -> None:
        self._checkouts = checkouts
        self._concurrency = concurrency
        self._rounds = rounds
        self._duration_s = duration_s
        self.absent: list[str] = []
        """What other checkouts do not know, in words."""

    async def take(self, setup: Setup) -> AsyncIterator[dict[str, Any]]:
        """The numbers of one run after another, ready for JSON."""
        async with AsyncExitStack() as stack:
            meshes: dict[str, MeshNotice] = {}
            for name, checkout in self._checkouts.items():
                try:
                    meshes[name] = await stack.enter_async_context(
                        mesh.running(
                            setup.worker_options, up_options=setup.up_options, checkout=checkout
                        )
                    )
                except MeshStartError:
                    self._is_absent(name, *(case.name for case in setup.cases))
            for case in setup.cases:
                subjects = [
                    (name, _subject(notice, case))
                    for name, notice in meshes.items()
                    if await self._knows(name, notice, case)
                ]
                for repeat in range(self._rounds):
                    for name, subject in subjects:
                        run = Run(
                            setup.pace, case.name, case.completion_tokens, self._concurrency, repeat
                        )
                        taken = await take(subject, run, self._duration_s)
                        yield {"checkout": name, "load_average_1m": load_average()} | taken

    async def _knows(self, name: str, notice: MeshNotice, case: Case) -> bool:
        """Whether a checkout answers such a request at all. The first one must."""
        subject = _subject(notice, case)
        async with subject.connect(subject.address, subject.model, 1) as (ask,):
            try:
                await ask(case.completion_tokens)
            except AnswerError:
                self._is_absent(name, case.name)
                return False
        return True

    def _is_absent(self, name: str, *cases: str) -> None:
        if name == next(iter(self._checkouts)):
            raise SystemExit(f"{name} cannot do what is measured: {', '.join(cases)}")
        told = (f"{case}: not in {name}" for case in cases)
        self.absent += [each for each in told if each not in self.absent]


def _subject(notice: MeshNotice, case: Case) -> Subject:
    process_ids = {process.job: process.process_id for process in notice.processes}
    (model,) = notice.models
    return Subject(case.name, notice.addresses("envoy")[0], model, case.connect, process_ids)
