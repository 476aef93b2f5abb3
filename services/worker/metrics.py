"""What a worker counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.mesh.metrics import DURATION_BUCKETS_S
from services.worker.engine_metrics import EngineCollector
from services.worker.engines.base import Engine, Finished, Started

UNKNOWN_MODEL = "unknown"
STEP_SEQUENCES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, eq=False)
class ModelMetrics:
    """The metrics of one model, with their labels already looked up."""

    queue_s: Histogram
    prefill_s: Histogram
    decode_s: Histogram
    prompt_tokens: Counter
    completion_tokens: Counter
    cached_tokens: Counter

    def started(self, event: Started) -> None:
        """Counts a request's prompt, once for all its choices."""
        self.prompt_tokens.inc(event.prompt_tokens)
        self.cached_tokens.inc(event.cached_tokens)

    def finished(self, event: Finished) -> None:
        """Observes where a sequence's time went."""
        self.queue_s.observe(event.timing.queue_s)
        self.prefill_s.observe(event.timing.prefill_s)
        self.decode_s.observe(event.timing.decode_s)


class WorkerMetrics:
    """All metrics of a worker. Labels are looked up once a model, not once a token."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = Counter(
            "tokenmesh_worker_requests",
            "Requests that ended, by how.",
            ("model", "code", "finish_reason"),
            registry=registry,
        )
        self._queue = self._duration("queue", "From arrival to the start of prefill.")
        self._prefill = self._duration("prefill", "From the start of prefill to the first token.")
        self._decode = self._duration("decode", "From the first token to the last.")
        self._tokens = Counter(
            "tokenmesh_worker_tokens",
            "Tokens: of prompts, of those the cached ones, and of completions.",
            ("model", "kind"),
            registry=registry,
        )
        self._step_sequences = Histogram(
            "tokenmesh_worker_step_sequences",
            "Sequences that one engine step had output of.",
            buckets=STEP_SEQUENCES_BUCKETS,
            registry=registry,
        )
        self._attached = Gauge(
            "tokenmesh_worker_attached",
            "1 while the controller has granted a lease.",
            ("controller",),
            registry=registry,
        )
        self._by_model: dict[str, ModelMetrics] = {}
        self._model_names: Mapping[str, str] = {}

    def watch_engine(self, engine: Engine) -> None:
        """Shows the engine's load and counters at each scrape; learns the names of its models."""
        self._model_names = {
            name: each.name for each in engine.models for name in (each.name, *each.aliases)
        }
        gauges = {
            "requests_running": ("Sequences computed just now.", lambda: engine.load().running),
            "requests_waiting": ("Requests that wait for a place.", lambda: engine.load().waiting),
            "kv_used_tokens": ("Tokens in the KV cache.", lambda: engine.load().kv_used_tokens),
            "kv_total_tokens": (
                "Tokens that fit the KV cache.",
                lambda: engine.capacity.kv_total_tokens,
            ),
        }
        for name, (description, read) in gauges.items():
            gauge = Gauge(f"tokenmesh_worker_{name}", description, registry=self._registry)
            gauge.set_function(read)
        self._registry.register(EngineCollector(engine))

    def model(self, requested: str) -> ModelMetrics:
        """The metrics of the model that a request asks for by name or alias."""
        name = self._model_names.get(requested, UNKNOWN_MODEL)
        metrics = self._by_model.get(name)
        if metrics is None:
            metrics = self._by_model[name] = ModelMetrics(
                queue_s=self._queue.labels(name),
                prefill_s=self._prefill.labels(name),
                decode_s=self._decode.labels(name),
                prompt_tokens=self._tokens.labels(name, "prompt"),
                completion_tokens=self._tokens.labels(name, "completion"),
                cached_tokens=self._tokens.labels(name, "cached"),
            )
        return metrics

    def request_ended(self, requested: str, code: str, finish_reason: str) -> None:
        """Counts a request: its gRPC code, and the finish reason of its last choice or ""."""
        name = self._model_names.get(requested, UNKNOWN_MODEL)
        self._requests.labels(name, code, finish_reason).inc()

    def step(self, sequences: int) -> None:
        """Observes an engine step that had output of so many sequences."""
        self._step_sequences.observe(sequences)

    def attached(self, controller: str, is_attached: bool) -> None:
        """Shows whether the controller has granted a lease."""
        self._attached.labels(controller).set(int(is_attached))

    def _duration(self, what: str, description: str) -> Histogram:
        return Histogram(
            f"tokenmesh_worker_{what}_seconds",
            description,
            ("model",),
            buckets=DURATION_BUCKETS_S,
            registry=self._registry,
        )
