"""Embed and Score: unary calls, each of which the engine batches with the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.mesh.errors import MeshError, NoWorkerError
from services.mesh.interceptors import as_mesh_error
from services.worker.generate.generate_stream import RETRY_AFTER_S, Serving
from services.worker.translation.encoding import (
    embed_call,
    embed_response,
    score_call,
    score_response,
)
from tokenmesh.worker.v1 import worker_pb2

Context = Any

_METHOD = "/tokenmesh.worker.v1.WorkerService/{}"


class EncodeCalls:
    """Runs calls on the worker's engine. A call whose gateway leaves is cancelled, and dropped."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def embed(
        self, request: worker_pb2.EmbedRequest, context: Context
    ) -> worker_pb2.EmbedResponse:
        """The vectors of some texts."""
        with self._call("Embed", request.model):
            embedded = await self._serving.engine.embed(embed_call(request, _deadline_s(context)))
            self._count(request.model, embedded.prompt_tokens)
            return embed_response(embedded)

    async def score(
        self, request: worker_pb2.ScoreRequest, context: Context
    ) -> worker_pb2.ScoreResponse:
        """The scores of some pairs."""
        with self._call("Score", request.model):
            scored = await self._serving.engine.score(score_call(request, _deadline_s(context)))
            self._count(request.model, scored.prompt_tokens)
            return score_response(scored)

    @contextmanager
    def _call(self, method: str, model: str) -> Iterator[None]:
        """Counts a call for as long as the context is open, and how it ended."""
        serving = self._serving
        code = "CANCELLED"
        try:
            if serving.state.is_draining:
                raise NoWorkerError(
                    "this worker drains and takes nothing new", retry_after_s=RETRY_AFTER_S
                )
            with serving.live_requests.call():
                yield
            code = "OK"
        except Exception as error:
            known: MeshError = as_mesh_error(error, _METHOD.format(method))
            code = known.code
            raise known from error
        finally:
            serving.metrics.request_ended(model, code, "")

    def _count(self, model: str, prompt_tokens: int) -> None:
        self._serving.metrics.model(model).prompt_tokens.inc(prompt_tokens)


def _deadline_s(context: Context) -> float | None:
    left_s = context.time_remaining()
    return None if left_s is None else time.monotonic() + left_s
