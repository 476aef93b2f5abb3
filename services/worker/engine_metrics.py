"""What an engine counts, read at each scrape: a step or a token costs nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.worker.engines.base import Engine

_PREFIX = "tokenmesh_worker_"

Family = CounterMetricFamily | GaugeMetricFamily


class EngineCollector(Collector):
    """An engine's counters as Prometheus metrics. What the engine does not have is left out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Family]:
        """The metrics as they stand."""
        counters = self._engine.counters()
        yield _counter("steps", "Engine steps that computed something.", counters.steps)
        yield _counters(
            "step_tokens",
            "Tokens computed in steps: of sequences that decode, one each, and of prompts.",
            "kind",
            {"decode": counters.decoded_tokens, "prefill": counters.prefilled_tokens},
        )
        yield _counters(
            "step_phase_seconds",
            "Time spent in each phase of the steps.",
            "phase",
            counters.phase_s,
        )
        blocks = GaugeMetricFamily(
            f"{_PREFIX}kv_blocks",
            "Blocks of the KV cache: used by sequences, cached for their content, and free.",
            labels=("state",),
        )
        for state, count in counters.kv_blocks.items():
            blocks.add_metric((state,), count)
        yield blocks
        yield _counter(
            "preemptions",
            "Sequences that lost their KV blocks to others, and were computed anew.",
            counters.preemptions,
        )
        yield _counters(
            "prefix_tokens",
            "Tokens of sequences that began to run: looked up in the prefix cache, and found.",
            "kind",
            {"queried": counters.prefix_queried_tokens, "hit": counters.prefix_hit_tokens},
        )
        yield _counter(
            "out_of_memory",
            "Forward passes that ran out of memory, and were computed in parts.",
            counters.out_of_memory,
        )
        yield _counters(
            "forms",
            "Outputs held to a form: whose form was compiled, or was there already.",
            "kind",
            {"compiled": counters.forms_compiled, "cached": counters.form_cache_hits},
        )
        yield _counter(
            "form_compile_seconds", "Time spent on compiling forms.", counters.form_compile_s
        )
        yield _counter("masks", "Tokens before which a form said which might come.", counters.masks)
        yield _counter(
            "mask_seconds", "Time spent on saying so, while the model computes.", counters.mask_s
        )


def _counter(name: str, description: str, value: float | None) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, description)
    if value is not None:
        family.add_metric((), value)
    return family


def _counters(
    name: str, description: str, label: str, values: Mapping[str, float | None]
) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, description, labels=(label,))
    for key, value in values.items():
        if value is not None:
            family.add_metric((key,), value)
    return family
