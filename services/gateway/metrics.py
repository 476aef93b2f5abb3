"""What a gateway counts. Names follow OpenTelemetry's GenAI conventions where there is one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.mesh.metrics import DURATION_BUCKETS_S, TOKEN_INTERVAL_BUCKETS_S, BoundedLabel

UNKNOWN_MODEL = "unknown"
MAX_LABEL_VALUES = 200

_OPERATION_LABELS = ("gen_ai_operation_name", "gen_ai_request_model")


class ModelMetrics:
    """The metrics of one model and operation, with their labels looked up once."""

    def __init__(self, metrics: GatewayMetrics, model: str, operation: str) -> None:
        self.model = model
        self.operation = operation
        self.running = metrics.requests_running.labels(model)
        self.time_to_first_token = metrics.time_to_first_token.labels(operation, model)
        self.time_per_output_token = metrics.time_per_output_token.labels(operation, model)
        self.inter_token = metrics.inter_token.labels(model)
        self.prompt_tokens = metrics.tokens.labels(model, "prompt")
        self.completion_tokens = metrics.tokens.labels(model, "completion")
        self.cached_tokens = metrics.tokens.labels(model, "cached")
        self.reasoning_tokens = metrics.tokens.labels(model, "reasoning")
        self.tool_calls = metrics.tool_calls.labels(model)
        self._metrics = metrics

    def count_end(self, duration_s: float, code: str, finish_reason: str) -> None:
        """Counts a request that has ended. `code` is a gRPC code's name."""
        error_type = "" if code == "OK" else code
        self._metrics.request_duration.labels(self.operation, self.model, error_type).observe(
            duration_s
        )
        self._metrics.requests.labels(self.model, self.operation, code, finish_reason).inc()

    def count_retry(self, cause: str) -> None:
        """Counts a request that goes to another worker. `cause` is the failure's reason."""
        self._metrics.retries.labels(self.model, cause).inc()

    def count_resume(self, cause: str) -> None:
        """Counts a request that another worker goes on with. `cause` is the failure's reason."""
        self._metrics.resumes.labels(self.model, cause).inc()

    def count_poison(self) -> None:
        """Counts a request that is stopped because workers have died of it."""
        self._metrics.poison_requests.labels(self.model).inc()

    def observe_resume_gap(self, cause: str, gap_s: float) -> None:
        """Notes how long a client that was being answered got nothing."""
        self._metrics.resume_gap.labels(self.model, cause).observe(gap_s)


class GatewayMetrics:
    """All metrics of a gateway, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bounded = BoundedLabel(MAX_LABEL_VALUES)
        self.of = cache(self._of)
        self.request_duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From a request's arrival to its end.",
            (*_OPERATION_LABELS, "error_type"),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            _OPERATION_LABELS,
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.time_per_output_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean over a request's tokens after the first.",
            _OPERATION_LABELS,
            buckets=TOKEN_INTERVAL_BUCKETS_S,
            registry=registry,
        )
        self.inter_token = Histogram(
            "tokenmesh_gateway_inter_token_seconds",
            "Between two deliveries of tokens to one client.",
            ("model",),
            buckets=TOKEN_INTERVAL_BUCKETS_S,
            registry=registry,
        )
        self.requests = Counter(
            "tokenmesh_gateway_requests",
            "Requests that have ended.",
            ("model", "operation", "code", "finish_reason"),
            registry=registry,
        )
        self.requests_running = Gauge(
            "tokenmesh_gateway_requests_running",
            "Requests that are carried just now.",
            ("model",),
            registry=registry,
        )
        self.requests_waiting = Gauge(
            "tokenmesh_gateway_requests_waiting",
            "Requests that wait in the gateway for a place at a worker.",
            ("model",),
            registry=registry,
        )
        self.queue_wait = Histogram(
            "tokenmesh_gateway_queue_wait_seconds",
            "How long requests that had to wait in the gateway did, until their turn came.",
            ("model",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.rejects = Counter(
            "tokenmesh_gateway_rejects",
            "Requests refused: requests is --max-requests, caller --max-requests-per-caller, "
            "waiting --max-waiting or --max-wait; deadline those whose time was up in the queue.",
            ("reason",),
            registry=registry,
        )
        self.tokens = Counter(
            "tokenmesh_gateway_tokens",
            "Tokens of requests that have ended: of prompts and, of those, cached ones; of "
            "completions and, of those, spent on reasoning.",
            ("model", "kind"),
            registry=registry,
        )
        self.tool_calls = Counter(
            "tokenmesh_gateway_tool_calls",
            "Tool calls that models made in requests that have ended.",
            ("model",),
            registry=registry,
        )
        self.routing_choices = Counter(
            "tokenmesh_gateway_routing_choices",
            "Requests by the worker that the routing policy chose.",
            ("policy", "worker"),
            registry=registry,
        )
        self.affinity = Counter(
            "tokenmesh_gateway_affinity",
            "Requests by what prefix_affinity made of them: home is where their prefix belongs, "
            "spill the next worker with room, none those without a prefix.",
            ("outcome",),
            registry=registry,
        )
        self.retries = Counter(
            "tokenmesh_gateway_retries",
            "Requests that went on to another worker before their first token.",
            ("model", "cause"),
            registry=registry,
        )
        self.poison_requests = Counter(
            "tokenmesh_gateway_poison_requests",
            "Requests that were stopped and quarantined because workers have died of them.",
            ("model",),
            registry=registry,
        )
        self.quarantine_refusals = Counter(
            "tokenmesh_gateway_quarantine_refusals",
            "Requests that were refused because they are quarantined.",
            registry=registry,
        )
        self.worker_losses = Counter(
            "tokenmesh_gateway_worker_losses",
            "Times that a worker was lost, or tripped its breaker by failing.",
            ("cause",),
            registry=registry,
        )
        self.stranded = Gauge(
            "tokenmesh_gateway_requests_stranded",
            "Requests whose worker was lost and that wait for another one just now.",
            registry=registry,
        )
        self.resume_wait = Histogram(
            "tokenmesh_gateway_resume_wait_seconds",
            "How long requests waited for another worker, where there was none at once.",
            ("outcome",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.resumes = Counter(
            "tokenmesh_gateway_resumes",
            "Times that another worker went on with an answer that had begun.",
            ("model", "cause"),
            registry=registry,
        )
        self.resume_gap = Histogram(
            "tokenmesh_gateway_resume_gap_seconds",
            "From the last token of one worker to the first of the one that went on.",
            ("model", "cause"),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.workers = Gauge(
            "tokenmesh_gateway_workers",
            "Workers that the gateway knows.",
            ("state",),
            registry=registry,
        )
        self.controller_connected = Gauge(
            "tokenmesh_gateway_controller_connected",
            "Whether the gateway watches the controller.",
            ("controller",),
            registry=registry,
        )

    def _of(self, model: str, operation: str) -> ModelMetrics:
        return ModelMetrics(self, self._bounded(model), operation)

    def count_waiting(self, model: str, change: int) -> None:
        """So many more requests wait for a worker, or fewer."""
        self.requests_waiting.labels(self._bounded(model)).inc(change)

    def observe_wait(self, model: str, wait_s: float) -> None:
        """A request has waited so long for its turn."""
        self.queue_wait.labels(self._bounded(model)).observe(wait_s)

    def count_reject(self, reason: str) -> None:
        """A request was refused, or dropped from the queue."""
        self.rejects.labels(reason).inc()

    def count_affinity(self, outcome: str) -> None:
        """Counts a choice of prefix_affinity."""
        self.affinity.labels(outcome).inc()

    def watch_workers(self, count: Callable[[str], int]) -> None:
        """Has scrapes ask `count` for the number of workers in each state."""
        for state in ("serving", "draining", "broken"):
            self.workers.labels(state).set_function(partial(count, state))
