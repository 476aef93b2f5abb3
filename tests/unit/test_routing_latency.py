"""What a gateway remembers of how long workers take."""

from __future__ import annotations

import pytest

from services.gateway.routing.latency import ANSWER_TOKENS, PeakEwma, WorkerLatency


def test_a_worse_measurement_counts_at_once_and_fades() -> None:
    average = PeakEwma(10.0)
    average.measure(0.1, 0.0)
    average.measure(2.0, 1.0)
    assert average.value_s(1.0, silent_after_s=30) == 2.0
    average.measure(0.1, 11.0)
    assert average.value_s(11.0, silent_after_s=30) == pytest.approx(0.1 + 1.9 / 2.71828, rel=1e-4)


def test_many_measurements_in_no_time_weigh_no_more_than_one() -> None:
    average = PeakEwma(10.0)
    average.measure(1.0, 0.0)
    for _ in range(100):
        average.measure(0.1, 0.001)
    assert average.value_s(0.001, silent_after_s=30) > 0.99


def test_a_worker_that_was_not_measured_lately_is_unknown() -> None:
    latency = WorkerLatency(silent_after_s=30.0)
    assert latency.answer_s(0.0) == 0.0
    latency.measure_first_token(0.5, 1.0)
    assert latency.answer_s(2.0) == 0.5
    latency.measure_inter_token(0.01, 2.0)
    assert latency.answer_s(2.0) == pytest.approx(0.5 + 0.01 * (ANSWER_TOKENS - 1))
    assert latency.answer_s(31.0) == 0.0
