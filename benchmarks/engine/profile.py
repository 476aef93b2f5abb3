"""What a step of the default engine spends its time on: by phase and by torch operation.

python -m benchmarks.engine profile [--rows 1,8,32] [--dtype bfloat16] [--sampling '{"top_p": 0.9}']

The step loop is driven in this thread, as the engine's own thread drives it, so that torch's
profiler sees it. Three passes over equal steps, so that no pass pays for another's measuring:
plain, by phase, by operation.
"""

from __future__ import annotations

import itertools
import queue
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.phases import REST, PhaseTimes, timing
from benchmarks.engine.prompts import random_prompts, word_ids
from benchmarks.tables import table
from services.worker.engines.base import EngineRequest
from services.worker.engines.settings import EngineSettings

PROMPT_TOKENS = 128
WARM_UP_STEPS = 8
STEPS = 40
OPERATIONS = 20
# More than any measuring of steps takes.
ENDLESS_TOKENS = 2000
MATRIX_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "mkldnn::_linear_pointwise"})
OUTSIDE = "outside of torch"


@dataclass(frozen=True)
class StepTimes:
    """What one step takes, in milliseconds."""

    plain_ms: float
    """Median, nothing measured within."""
    phases_ms: Mapping[str, float]
    operations_ms: Mapping[str, tuple[float, float]]
    """Exclusive time and calls of each torch operation, most expensive first."""


class SteppedEngine:
    """The default engine's step loop, driven step by step."""

    def __init__(self, settings: EngineSettings) -> None:
        from services.worker.engines.transformers import commands
        from services.worker.engines.transformers.assembly import assemble

        self._words = word_ids(Path(settings.model_path))
        self._prompts = random_prompts(self._words, PROMPT_TOKENS, "profile")
        self._commands: commands.Commands = queue.SimpleQueue()
        self._protocol = commands
        self._keys = itertools.count()
        self._assembly = assemble(settings, self._commands, _take_events, lambda: True)
        self.step_loop: Any = self._assembly.step_loop
        self.description = self._assembly.description

    def add(self, rows: int, fields: Mapping[str, Any], completion_tokens: int) -> list[int]:
        """Puts requests in the queue. Their keys."""
        keys = list(itertools.islice(self._keys, rows))
        for key in keys:
            sampling = {**fields, "max_tokens": completion_tokens, "ignore_eos": True, "seed": key}
            request = EngineRequest(
                key, "profile", self.description.name, next(self._prompts).ids, sampling
            )
            sequences = self._assembly.admission.sequences(request, time.monotonic())
            self._commands.put(self._protocol.Add(sequences))
        return keys

    @contextmanager
    def decoding(self, rows: int, fields: Mapping[str, Any]) -> Iterator[None]:
        """Within it, so many sequences decode, and nothing else runs."""
        keys = self.add(rows, fields, completion_tokens=ENDLESS_TOKENS)
        try:
            while self.step_loop.load.running < rows or self.step_loop.load.waiting:
                self.steps(1)
            # The last prompts may still be in pieces.
            self.steps(rows)
            yield
        finally:
            for key in keys:
                self._commands.put(self._protocol.Abort(key))
            # A step that finds nothing to do would wait.
            self.add(1, {}, completion_tokens=1)
            self.steps(1)

    def steps(self, count: int) -> list[float]:
        """Runs so many steps. What each took, in seconds."""
        taken_s = []
        for _ in range(count):
            began_s = time.perf_counter()
            self.step_loop.step()
            taken_s.append(time.perf_counter() - began_s)
        return taken_s


def _take_events(events: Sequence[Any]) -> None:
    """Stands where the way to the event loop begins."""


def _measure(engine: SteppedEngine, advance: Any) -> StepTimes:
    """`advance(count)` runs so many equal steps, and tells what each took."""
    from torch.profiler import ProfilerActivity, profile

    advance(WARM_UP_STEPS)
    plain_ms = statistics.median(advance(STEPS)) * 1000
    times = PhaseTimes()
    with timing(engine.step_loop, times):
        whole_ms = sum(advance(STEPS)) / STEPS * 1000
    phases_ms = {phase: seconds / STEPS * 1000 for phase, seconds in times.seconds.items()}
    phases_ms[REST] = whole_ms - sum(phases_ms.values())
    with profile(activities=[ProfilerActivity.CPU], acc_events=True, record_shapes=True) as by_op:
        profiled_ms = sum(advance(STEPS)) / STEPS * 1000
    operations_ms = _by_operation(by_op.key_averages(group_by_input_shape=True))
    outside_ms = profiled_ms - sum(own_ms for own_ms, _ in operations_ms.values())
    dearest = sorted(operations_ms.items(), key=lambda each: -each[1][0])[:OPERATIONS]
    return StepTimes(plain_ms, phases_ms, dict(dearest) | {OUTSIDE: (outside_ms, 1)})


def _by_operation(averages: Any) -> dict[str, tuple[float, float]]:
    """Own milliseconds and calls for each step. Matrix products are told apart by their shapes."""
    found: dict[str, tuple[float, float]] = {}
    for each in averages:
        name = each.key
        if name in MATRIX_PRODUCTS:
            name += " " + " x ".join(str(shape) for shape in each.input_shapes if shape)
        own_ms, calls = found.get(name, (0.0, 0.0))
        own_ms += each.self_cpu_time_total / STEPS / 1000
        found[name] = own_ms, calls + each.count / STEPS
    return found


def decode_steps(engine: SteppedEngine, rows: int, fields: Mapping[str, Any]) -> StepTimes:
    """Steps in which so many sequences decode, after prompts of PROMPT_TOKENS."""
    with engine.decoding(rows, fields):
        return _measure(engine, engine.steps)


def prefill_steps(engine: SteppedEngine, prompts: int) -> StepTimes:
    """Steps that compute so many prompts of PROMPT_TOKENS, and sample one token of each."""

    def advance(count: int) -> list[float]:
        taken_s = []
        for _ in range(count):
            engine.add(prompts, {"temperature": 0.0}, completion_tokens=1)
            taken_s += engine.steps(1)
        return taken_s

    return _measure(engine, advance)


def describe(title: str, times: StepTimes) -> str:
    """The times as text."""
    phases = [
        [phase, f"{value:.3f}", f"{value / sum(times.phases_ms.values()):.0%}"]
        for phase, value in times.phases_ms.items()
    ]
    operations = [
        [name, f"{value:.3f}", f"{calls:.1f}"]
        for name, (value, calls) in times.operations_ms.items()
    ]
    return "\n".join(
        (
            f"\n## {title}: {times.plain_ms:.2f} ms a step\n",
            table(["phase", "ms a step", "share"], phases),
            "",
            table(
                ["torch operation (profiled: slower)", "own ms a step", "calls a step"], operations
            ),
        )
    )
