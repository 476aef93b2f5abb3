"""What is measured of one request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.gateway.metrics import UNKNOWN_MODEL, GatewayMetrics
from services.gateway.relay.progress import ChoiceProgress
from services.mesh.errors import MeshError
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

CANCELLED = "CANCELLED"

_FINISH_REASON_PREFIX = "FINISH_REASON_"


class RequestRecord:
    """Follows a request through its life and counts it when it ends."""

    __slots__ = (
        "_began_s",
        "_cached_tokens",
        "_finish_reason",
        "_first_token_s",
        "_has_begun",
        "_last_token_s",
        "_metrics",
        "_model",
        "_operation",
        "_resume_cause",
        "prompt_tokens",
    )

    def __init__(self, metrics: GatewayMetrics, operation: str) -> None:
        self._began_s = time.perf_counter()
        self._metrics = metrics
        self._operation = operation
        self._model = metrics.of(UNKNOWN_MODEL, operation)
        self._has_begun = False
        self._first_token_s = 0.0
        self._last_token_s = 0.0
        self.prompt_tokens = 0
        """0 until they are counted."""
        self._cached_tokens = 0
        self._finish_reason = ""
        self._resume_cause = ""

    def begin(self, model: str) -> None:
        """The request runs, for a model of this name."""
        self._model = self._metrics.of(model, self._operation)
        self._model.running.inc()
        self._has_begun = True

    def went_on(self, error: MeshError, *, has_output: bool) -> None:
        """Another worker goes on, after this error: with some output, or from the start."""
        if has_output:
            self._model.count_resume(error.reason)
            self._resume_cause = error.reason
        else:
            self._model.count_retry(error.reason)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The request waits for another worker for as long as the context is open."""
        began_s = time.perf_counter()
        self._metrics.stranded.inc()
        outcome = "failed"
        try:
            yield
            outcome = "resumed"
        finally:
            self._metrics.stranded.dec()
            waited_s = time.perf_counter() - began_s
            self._metrics.resume_wait.labels(outcome).observe(waited_s)

    def convicted(self) -> None:
        """Its workers have died of it."""
        self._model.count_poison()

    def started(self, started: worker_pb2.Started) -> None:
        """The prompt is computed."""
        self.prompt_tokens = started.prompt_tokens
        self._cached_tokens = started.cached_tokens

    def delivered(self) -> None:
        """Tokens are there for the client, also where they are held to be sent whole."""
        now_s = time.perf_counter()
        if self._first_token_s:
            self._model.inter_token.observe(now_s - self._last_token_s)
            if self._resume_cause:
                self._model.observe_resume_gap(self._resume_cause, now_s - self._last_token_s)
                self._resume_cause = ""
        else:
            self._first_token_s = now_s
            self._model.time_to_first_token.observe(now_s - self._began_s)
        self._last_token_s = now_s

    def finished(self, finished: worker_pb2.Finished) -> None:
        """A choice has ended well."""
        reason = generation_pb2.FinishReason.Name(finished.reason)
        self._finish_reason = reason.removeprefix(_FINISH_REASON_PREFIX).lower()

    def end(
        self,
        error: BaseException | None,
        *,
        progress: Sequence[ChoiceProgress] = (),
        was_left: bool = False,
    ) -> None:
        """The request is over: with an error, left by its client, or well.

        `progress` is what the client got, by choice.
        """
        model = self._model
        if self._has_begun:
            model.running.dec()
        code, reason = "OK", self._finish_reason
        if isinstance(error, MeshError):
            code, reason = error.code, ""
        elif was_left:
            code, reason = CANCELLED, ""
        elif error is not None:
            code, reason = "INTERNAL", ""
        model.prompt_tokens.inc(self.prompt_tokens)
        model.cached_tokens.inc(self._cached_tokens)
        completion_tokens = sum(len(each.token_ids) for each in progress)
        model.completion_tokens.inc(completion_tokens)
        model.reasoning_tokens.inc(sum(each.reasoning_tokens for each in progress))
        model.tool_calls.inc(sum(each.tool_calls for each in progress))
        tokens_after_first = completion_tokens - 1
        if tokens_after_first > 0 and self._last_token_s > self._first_token_s:
            model.time_per_output_token.observe(
                (self._last_token_s - self._first_token_s) / tokens_after_first
            )
        model.count_end(time.perf_counter() - self._began_s, code, reason)
