"""Where a step's time goes, by the engine's own phases: exclusive time of its methods."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

PHASES = (
    ("commands", "_take_commands"),
    ("schedule", "_scheduler.schedule"),
    ("layout", "_runner.run"),
    ("forward", "_runner.forward"),
    ("sample", "_sampler.sample"),
    ("advance", "_advance"),
    ("publish", "_publish"),
)
"""Each phase, and the callable of the step loop that it is. What a phase spends in another one
within it counts for that other only: layout is what `run` does beside `forward`."""

REST = "rest"
"""What a step spends in none of them."""


class PhaseTimes:
    """Seconds that each phase took, without the phases within it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within: list[float] = []

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            began_s = self._clock()
            self._within.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took_s = self._clock() - began_s
                self.seconds[phase] += took_s - self._within.pop()
                if self._within:
                    self._within[-1] += took_s

        return call


def find_phase(step_loop: Any, path: str) -> tuple[Any, str]:
    """The object and the name of a phase's callable.

    Raises:
        AttributeError: the engine has no such callable any more.
    """
    *owners, name = path.split(".")
    owner = step_loop
    for each in owners:
        owner = getattr(owner, each)
    getattr(owner, name)
    return owner, name


@contextmanager
def timing(step_loop: Any, times: PhaseTimes) -> Iterator[None]:
    """Within it, the step loop's phases are timed."""
    wrapped = []
    try:
        for phase, path in PHASES:
            owner, name = find_phase(step_loop, path)
            before = vars(owner).get(name)
            setattr(owner, name, times.timed(phase, getattr(owner, name)))
            wrapped.append((owner, name, before))
        yield
    finally:
        for owner, name, before in reversed(wrapped):
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
