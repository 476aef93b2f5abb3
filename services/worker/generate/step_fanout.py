"""Spreads what each engine step produced over the gateways' streams."""

from __future__ import annotations

from services.mesh.errors import MeshError, UnavailableError, WorkerLostError
from services.worker.engines.base import Engine, StepOutput
from services.worker.generate.live_request import LiveRequest, LiveRequests
from services.worker.generate.step_pace import StepPace
from services.worker.generate.step_responses import StepResponses
from services.worker.metrics import WorkerMetrics


class StepFanout:
    """The one consumer of an engine's steps."""

    def __init__(
        self, engine: Engine, live_requests: LiveRequests, metrics: WorkerMetrics, pace: StepPace
    ) -> None:
        self._engine = engine
        self._pace = pace
        self._live_requests = live_requests
        self._metrics = metrics

    async def run(self) -> None:
        """Runs until the engine stops. Whatever ends it, requests that still run fail.

        An exception of the engine is passed on.
        """
        error: MeshError = UnavailableError("the worker is stopping")
        try:
            async for step in self._engine.steps():
                responses = self._spread(step)
                if responses.are_behind:
                    await self._pace.wait()
        except Exception:
            # The process ends, too: gateways go on elsewhere, as if it had been killed.
            error = WorkerLostError("the worker's engine broke down")
            raise
        finally:
            self.fail_all(error)

    def fail_all(self, error: MeshError) -> None:
        """Fails all requests that run."""
        for live in self._live_requests:
            live.stream.fail(live, error)

    def _spread(self, step: StepOutput) -> StepResponses:
        responses = StepResponses(step.step)
        for each in step.events:
            live = each.key
            assert isinstance(live, LiveRequest)
            if not live.is_over:
                responses.add(live, each)
        responses.send()
        if responses.sequences:
            self._metrics.step(responses.sequences)
        return responses
