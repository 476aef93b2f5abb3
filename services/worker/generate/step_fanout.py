"""Spreads what each engine step produced over the gateways' streams."""

from __future__ import annotations

import asyncio
import time

from services.mesh.errors import MeshError, UnavailableError, WorkerLostError
from services.worker.engines.base import Engine, StepOutput
from services.worker.generate.live_request import LiveRequest, LiveRequests
from services.worker.generate.step_pace import StepPace
from services.worker.generate.step_responses import StepResponses
from services.worker.generate.step_watch import StepWatch
from services.worker.metrics import WorkerMetrics

# How often the engine is looked at within the time after which it counts as hung.
LOOKS = 10


class EngineHungError(Exception):
    """The engine does not come back from a step."""


class StepFanout:
    """The one consumer of an engine's steps."""

    def __init__(
        self,
        engine: Engine,
        live_requests: LiveRequests,
        metrics: WorkerMetrics,
        pace: StepPace,
        watch: StepWatch,
    ) -> None:
        self._engine = engine
        self._pace = pace
        self._live_requests = live_requests
        self._metrics = metrics
        self._watch = watch
        self._steps = 0

    async def run(self) -> None:
        """Runs until the engine stops. Whatever ends it, requests that still run fail.

        Raises:
            EngineHungError: the engine hangs within a step.
            Exception: what the engine raised.
        """
        error: MeshError = UnavailableError("the worker is stopping")
        spreading = asyncio.create_task(self._spread_all())
        try:
            while not (await asyncio.wait({spreading}, timeout=self._watch.limit_s / LOOKS))[0]:
                owed = self._live_requests.any_owed()
                load = self._engine.load()
                if self._watch.hangs(time.monotonic(), load, self._steps, is_owed=owed):
                    raise EngineHungError(f"it hangs in a step for {self._watch.limit_s:g} s")
            await spreading
        except Exception:
            # The process ends, too: gateways go on elsewhere, as if it had been killed.
            error = WorkerLostError("the worker's engine broke down")
            raise
        finally:
            spreading.cancel()
            self.fail_all(error)

    async def _spread_all(self) -> None:
        async for step in self._engine.steps():
            self._steps += 1
            responses = self._spread(step)
            if responses.are_behind:
                await self._pace.wait()

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
