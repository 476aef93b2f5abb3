"""Reports of kept results say what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overload, routing
from benchmarks.conversations import Talked, Turn
from benchmarks.overload import Outcome
from benchmarks.results import FOLDER


def kept(name: str) -> list[Path]:
    return sorted(FOLDER.glob(f"*-{name}.json"))


@pytest.mark.parametrize(
    ("module", "path"),
    [
        *((routing, path) for path in (*kept("routing"), *kept("routing-demo-model"))),
        *((overload, path) for path in kept("overload")),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_a_kept_report_is_made_of_its_numbers(module: Any, path: Path) -> None:
    assert path.with_suffix(".md").read_text() == module.markdown(json.loads(path.read_text()))


def test_results_are_kept() -> None:
    assert kept("overload")
    assert kept("routing")


def test_goodput_is_of_the_second_half_and_of_what_finished_in_time() -> None:
    outcome = Outcome(
        elapsed_s=10.0,
        sent=6,
        first_token_s=[0.1, 0.2, 0.3, 0.4],
        finished_at_s=[1.0, 5.0, 9.9, 10.5],
        refused_after_s=[0.01, 0.02],
        retry_after_s=[1.0, 2.0],
    )
    run = overload._summary(2.0, outcome, 10.0)
    assert run["goodput_per_s"] == 2 / 5
    assert (run["finished"], run["refused"], run["errors"]) == (4, 2, 0)


def test_cached_tokens_are_summed_and_later_turns_told_apart() -> None:
    talked = Talked([Turn(1, 0.5, 100, 0), Turn(2, 0.1, 150, 96)], ["UNAVAILABLE: gone"])
    run = routing._summary("round_robin", talked)
    assert (run["prompt_tokens"], run["cached_tokens"], run["errors"]) == (250, 96, 1)
    assert run["first_token_of_later_turns_ms"]["p99"] == 100.0
