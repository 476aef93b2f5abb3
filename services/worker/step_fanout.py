"""Spreads what each engine step produced over the gateways' streams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from services.mesh.errors import InternalError, MeshError, UnavailableError
from services.mesh.interceptors import as_mesh_error
from services.worker.engines.base import (
    Chunk,
    Engine,
    Failed,
    Finished,
    SequenceEvent,
    Started,
    StepOutput,
)
from services.worker.event_translation import write_event
from services.worker.generate_stream import METHOD, GenerateStream
from services.worker.live_request import LiveRequest, LiveRequests
from services.worker.metrics import ModelMetrics, WorkerMetrics
from services.worker.step_pace import StepPace
from tokenmesh.worker.v1 import worker_pb2


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
                streams = self._spread(step)
                if streams and all(each.is_behind for each in streams):
                    await self._pace.wait()
        except Exception:
            error = InternalError("the worker's engine broke down")
            raise
        finally:
            self.fail_all(error)

    def fail_all(self, error: MeshError) -> None:
        """Fails all requests that run."""
        for live in self._live_requests:
            live.stream.fail(live, error)

    def _spread(self, step: StepOutput) -> Collection[GenerateStream]:
        """Returns the streams that got something."""
        responses: dict[GenerateStream, worker_pb2.GenerateResponse] = {}
        tokens: defaultdict[ModelMetrics, int] = defaultdict(int)
        ended: list[tuple[LiveRequest, str]] = []
        broken: list[tuple[LiveRequest, MeshError]] = []
        sequences = 0
        for each in step.events:
            live = each.key
            assert isinstance(live, LiveRequest)
            if live.is_over:
                continue
            response = responses.get(live.stream)
            if response is None:
                response = worker_pb2.GenerateResponse(step=step.step)
                responses[live.stream] = response
            try:
                _add_event(each, live.request_key, response)
            except Exception as error:
                # One request that cannot be told must not take the others with it.
                del response.events[-1]
                broken.append((live, as_mesh_error(error, METHOD)))
                continue
            if isinstance(each.event, Chunk):
                live.next_numbers[each.choice_index] = each.number + 1
                count = len(each.event.token_ids)
                tokens[live.metrics] += count
                sequences += 1
                if live.count_tokens(each.choice_index, count):
                    live.stream.top_up(live)
            elif (code := self._note(live, each)) is not None:
                ended.append((live, code))
        for stream, response in responses.items():
            stream.step = step.step
            stream.send(response)
        for live, code in ended:
            live.stream.end(live, code)
        for live, failure in broken:
            if not live.is_over:
                live.stream.fail(live, failure)
        for metrics, count in tokens.items():
            metrics.completion_tokens.inc(count)
        if sequences:
            self._metrics.step(sequences)
        return responses

    def _note(self, live: LiveRequest, each: SequenceEvent) -> str | None:
        """Takes note of a start or an end. The code of the request when its last choice ended."""
        event = each.event
        if isinstance(event, Started):
            live.next_numbers[each.choice_index] = each.number + 1
            if each.choice_index == 0:
                live.metrics.started(event)
            return None
        code = "OK"
        if isinstance(event, Finished):
            live.metrics.finished(event)
            live.finish_reason = event.reason.value
        elif isinstance(event, Failed):
            code = event.error.code
        return code if live.end_choice(each.choice_index) else None


def _add_event(
    each: SequenceEvent, request_key: int, response: worker_pb2.GenerateResponse
) -> None:
    target = response.events.add()
    target.request_key = request_key
    target.choice_index = each.choice_index
    target.number = each.number
    write_event(each.event, target)
