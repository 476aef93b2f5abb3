"""An engine's counters at a scrape."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from services.worker.engine_metrics import EngineCollector
from services.worker.engines.base import EngineCounters
from services.worker.engines.scripted import ScriptedEngine
from services.worker.engines.scripted.settings import ScriptedSettings


class Counting(ScriptedEngine):
    """An engine that has counted what it is told."""

    counted = EngineCounters()

    def counters(self) -> EngineCounters:
        return self.counted


def scraped(counted: EngineCounters) -> list[str]:
    engine = Counting(ScriptedSettings())
    engine.counted = counted
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


def test_what_an_engine_counts_is_shown() -> None:
    lines = scraped(
        EngineCounters(
            steps=7,
            decoded_tokens=21,
            prefilled_tokens=300,
            phase_s={"schedule": 0.5, "forward": 2.25},
            kv_blocks={"used": 3, "cached": 4, "free": 5},
            preemptions=2,
            prefix_queried_tokens=100,
            prefix_hit_tokens=64,
            out_of_memory=1,
        )
    )
    assert lines == [
        "tokenmesh_worker_steps_total 7.0",
        'tokenmesh_worker_step_tokens_total{kind="decode"} 21.0',
        'tokenmesh_worker_step_tokens_total{kind="prefill"} 300.0',
        'tokenmesh_worker_step_phase_seconds_total{phase="schedule"} 0.5',
        'tokenmesh_worker_step_phase_seconds_total{phase="forward"} 2.25',
        'tokenmesh_worker_kv_blocks{state="used"} 3.0',
        'tokenmesh_worker_kv_blocks{state="cached"} 4.0',
        'tokenmesh_worker_kv_blocks{state="free"} 5.0',
        "tokenmesh_worker_preemptions_total 2.0",
        'tokenmesh_worker_prefix_tokens_total{kind="queried"} 100.0',
        'tokenmesh_worker_prefix_tokens_total{kind="hit"} 64.0',
        "tokenmesh_worker_out_of_memory_total 1.0",
    ]


def test_what_an_engine_does_not_have_is_left_out() -> None:
    assert scraped(EngineCounters()) == []
    assert scraped(EngineCounters(steps=0)) == ["tokenmesh_worker_steps_total 0.0"]
