"""When an engine counts as hung."""

from __future__ import annotations

from services.worker.engines.base import EngineLoad
from services.worker.generate.step_watch import StepWatch


def load(kv_used_tokens: int = 0, generated_tokens: int = 0) -> EngineLoad:
    return EngineLoad(1, 0, kv_used_tokens, generated_tokens)


def test_an_engine_that_does_nothing_for_what_it_owes_hangs() -> None:
    watch = StepWatch(10.0)
    assert not watch.hangs(0.0, load(), 5, is_owed=True)
    assert not watch.hangs(9.9, load(), 5, is_owed=True)
    assert watch.hangs(10.0, load(), 5, is_owed=True)


def test_a_prefill_in_chunks_is_work_however_long_it_takes() -> None:
    watch = StepWatch(10.0)
    assert not any(
        watch.hangs(9.0 * chunk, load(kv_used_tokens=512 * chunk), 5, is_owed=True)
        for chunk in range(100)
    )


def test_output_is_work() -> None:
    watch = StepWatch(10.0)
    assert not any(watch.hangs(9.0 * step, load(), step, is_owed=True) for step in range(100))


def test_requests_without_credit_are_owed_nothing() -> None:
    watch = StepWatch(10.0)
    assert not any(watch.hangs(9.0 * look, load(), 5, is_owed=False) for look in range(100))
    assert not watch.hangs(900.0, load(), 5, is_owed=True)
    assert watch.hangs(901.0, load(), 5, is_owed=True)
