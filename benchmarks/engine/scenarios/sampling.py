"""What each way of sampling costs a step of 32 sequences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks import machine
from benchmarks.engine import parts
from benchmarks.engine.profile import SteppedEngine
from services.worker.engines.settings import EngineSettings

ROWS = 32
STEPS = 30
REPEATS = 3

_DRAWN = {"temperature": 0.8}
CASES: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": _DRAWN,
    "temperature, top_p": {**_DRAWN, "top_p": 0.9},
    "temperature, top_k": {**_DRAWN, "top_k": 40},
    "temperature, min_p": {**_DRAWN, "min_p": 0.05},
    "temperature, top_p, top_k": {**_DRAWN, "top_p": 0.9, "top_k": 40},
    "greedy, repetition penalty": {"temperature": 0.0, "repetition_penalty": 1.1},
    "greedy, presence and frequency": {
        "temperature": 0.0,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
    },
    "greedy, logit_bias": {"temperature": 0.0, "logit_bias": {7: 1.0, 8: -1.0}},
    "greedy, logprobs": {"temperature": 0.0, "top_logprobs": 0},
    "greedy, 20 top logprobs": {"temperature": 0.0, "top_logprobs": 20},
}

ABOUT = f"""\
Median milliseconds of a decode step of {ROWS} sequences, each sampled so; the cases take turns.
The weights are random, so probabilities are as flat as they get: a filter has most to do."""


def take(settings: EngineSettings) -> parts.Part:
    """Takes all runs."""
    part = parts.begin(
        "sampling",
        title="What sampling costs",
        about=ABOUT,
        dtype=settings.dtype,
        threads=settings.threads or "default",
    )
    engine = SteppedEngine(settings)
    load_average, disturbance = machine.load_average(), machine.Disturbance()
    taken_ms: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(REPEATS):
        for case, fields in CASES.items():
            taken_ms[case].append(_median_step_ms(engine, fields))
    others_cores = disturbance.cores()
    greedy_ms = statistics.median(taken_ms["greedy"])
    for case, values in taken_ms.items():
        middle_ms = statistics.median(values)
        part["runs"].append(
            {
                "case": case,
                "load_average_1m_before": load_average,
                "others_cores": others_cores,
                "step_ms": [round(each, 4) for each in values],
                "shown": {
                    "step": f"{middle_ms:.2f} ms",
                    "over greedy": "" if case == "greedy" else f"{middle_ms - greedy_ms:+.2f} ms",
                },
            }
        )
    part["is_complete"] = True
    return part


def _median_step_ms(engine: SteppedEngine, fields: Mapping[str, Any]) -> float:
    with engine.decoding(ROWS, fields):
        engine.steps(3)
        return statistics.median(engine.steps(STEPS)) * 1000
