"""One Generate stream: the requests of one gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from services.mesh.errors import (
    ExhaustedError,
    InvalidRequestError,
    MeshError,
    NoWorkerError,
    QueueFullError,
)
from services.mesh.interceptors import as_mesh_error
from services.worker.attach.serving_state import ServingState
from services.worker.engines.base import Engine, Failed
from services.worker.engines.sampling import MAX_CHOICES
from services.worker.generate.credit import CreditWindow
from services.worker.generate.live_request import LiveRequest, LiveRequests
from services.worker.generate.outbox import Outbox
from services.worker.generate.step_pace import StepPace
from services.worker.metrics import WorkerMetrics
from services.worker.parsing.preparation import prepare
from services.worker.translation.events import write_event
from services.worker.translation.requests import engine_request
from services.worker.translation.tools import tool_use
from tokenmesh.worker.v1 import worker_pb2

log = structlog.get_logger()

METHOD = "/tokenmesh.worker.v1.WorkerService/Generate"

WRITE_CHECK_INTERVAL_S = 1.0
RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Serving:
    """What all streams of a worker share."""

    engine: Engine
    state: ServingState
    live_requests: LiveRequests
    metrics: WorkerMetrics
    pace: StepPace
    may_bring_template: bool
    gateway_read_limit_s: float


class GenerateStream:
    """Takes one gateway's frames, and queues what the engine produces for them.

    A gateway that does not read is held back by credit: when its outbox is full, its sequences get
    no more, and its frames are not read. After `gateway_read_limit_s` the stream ends.
    """

    def __init__(self, serving: Serving) -> None:
        self.step = 0
        self._serving = serving
        self._live: dict[int, LiveRequest] = {}
        self._held_back: set[LiveRequest] = set()
        self._outbox = Outbox(self._release, serving.pace.go_on)
        self._has_all_frames = False

    async def responses(
        self, frames: AsyncIterator[worker_pb2.GenerateRequest]
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Serves the stream. Leaving it aborts what still runs on it.

        Raises:
            InvalidRequestError: a frame is broken.
            ExhaustedError: the gateway did not read.
        """
        reading = asyncio.create_task(self._read(frames))
        watching = asyncio.create_task(self._watch_writes())
        try:
            async for response in self._outbox:
                yield response
        finally:
            self.abandon()
            reading.cancel()
            watching.cancel()
            await asyncio.gather(reading, watching, return_exceptions=True)

    @property
    def is_behind(self) -> bool:
        """Whether the gateway takes responses more slowly than steps produce them."""
        return self._outbox.is_behind

    def send(self, response: worker_pb2.GenerateResponse) -> None:
        """Queues what a step produced."""
        self._outbox.put(response)

    def tell_state(self) -> None:
        """Tells the gateway whether this worker takes requests."""
        state = worker_pb2.SERVING_STATE_SERVING
        if self._serving.state.is_draining:
            state = worker_pb2.SERVING_STATE_DRAINING
        self.send(worker_pb2.GenerateResponse(step=self.step, serving_state=state))

    def top_up(self, live: LiveRequest) -> None:
        """Grants the engine more credit for a request, at once or when the gateway has read."""
        if not self._outbox.has_room:
            self._held_back.add(live)
            return
        tokens = live.credit.top_up(live.lead_tokens)
        live.top_up_at_tokens = live.credit.top_up_at_tokens
        if tokens:
            self._serving.engine.grant_credit(live, tokens)

    def end(self, live: LiveRequest, code: str) -> None:
        """Lets a request go that is over."""
        if live.parsing is not None and live.parsing.has_cut:
            self._abort_in_engine(live)
        live.is_over = True
        self._live.pop(live.request_key, None)
        self._held_back.discard(live)
        self._serving.live_requests.discard(live)
        self._serving.metrics.request_ended(live.model, code, live.finish_reason)
        self._serving.pace.go_on()
        self._close_when_done()

    def fail(self, live: LiveRequest, error: MeshError) -> None:
        """Ends each choice of a request that has not ended with Failed."""
        response = worker_pb2.GenerateResponse(step=self.step)
        for index, number in live.unended_choices():
            event = response.events.add(
                request_key=live.request_key, choice_index=index, number=number
            )
            write_event(Failed(error), event)
        self.send(response)
        self._abort_in_engine(live)
        self.end(live, error.code)

    def abandon(self) -> None:
        """Aborts all that runs on the stream."""
        for live in list(self._live.values()):
            self._abort(live)

    def close(self, error: MeshError) -> None:
        """Aborts what runs, and ends the stream with the error once what is queued is written."""
        self.abandon()
        self._outbox.close(error)

    async def _read(self, frames: AsyncIterator[worker_pb2.GenerateRequest]) -> None:
        try:
            async with asyncio.TaskGroup() as submissions:
                async for frame in frames:
                    self._take(frame, submissions)
                    await self._outbox.wait_for_room()
        except ExceptionGroup as group:
            self._outbox.close(as_mesh_error(group.exceptions[0], METHOD))
        self._has_all_frames = True
        self._close_when_done()

    def _take(self, frame: worker_pb2.GenerateRequest, submissions: asyncio.TaskGroup) -> None:
        kind = frame.WhichOneof("frame")
        if kind is None:
            raise InvalidRequestError(
                "a frame must hold start, abort or credit", reason="FRAME_EMPTY", field="frame"
            )
        live = self._live.get(frame.request_key)
        if kind == "start":
            if live is not None:
                raise InvalidRequestError(
                    f"request key {frame.request_key} is still running on this stream",
                    reason="REQUEST_KEY_IN_USE",
                    field="request_key",
                )
            live = self._open(frame.request_key, frame.start)
            submissions.create_task(self._submit(live, frame.start))
        elif live is None:
            return
        elif kind == "abort":
            self._abort(live)
        else:
            live.credit.extend(frame.credit.tokens)
            if live.is_submitted:
                self.top_up(live)

    def _open(self, request_key: int, start: worker_pb2.Start) -> LiveRequest:
        choices = min(max(start.sampling.choices, 1), MAX_CHOICES)
        numbers = [0] * choices
        for each in start.output_so_far:
            if each.choice_index < choices:
                numbers[each.choice_index] = each.next_number
        live = LiveRequest(
            stream=self,
            request_key=request_key,
            request_id=start.request_id,
            model=start.model,
            first_numbers=numbers,
            credit=CreditWindow(start.credit_tokens),
            metrics=self._serving.metrics.model(start.model),
        )
        self._live[request_key] = live
        self._serving.live_requests.add(live)
        return live

    async def _submit(self, live: LiveRequest, start: worker_pb2.Start) -> None:
        serving = self._serving
        structlog.contextvars.bind_contextvars(request_id=start.request_id)
        try:
            if serving.state.is_draining:
                raise NoWorkerError(
                    "this worker drains and takes nothing new", retry_after_s=RETRY_AFTER_S
                )
            capacity = serving.engine.capacity
            if len(serving.live_requests) > capacity.max_running + capacity.max_waiting:
                raise QueueFullError(
                    "this worker holds as many requests as it may", retry_after_s=RETRY_AFTER_S
                )
            request = engine_request(
                start,
                live,
                now_s=time.monotonic(),
                credit_tokens=live.credit.granted_tokens,
                may_bring_template=serving.may_bring_template,
            )
            if start.HasField("chat"):
                request, live.parsing = await prepare(serving.engine, request, tool_use(start.chat))
            await serving.engine.submit(request)
        except asyncio.CancelledError:
            serving.engine.abort(live)
            raise
        except Exception as error:
            if not live.is_over:
                self.fail(live, as_mesh_error(error, METHOD))
            return
        live.is_submitted = True
        serving.pace.go_on()
        if live.is_over:
            serving.engine.abort(live)
        else:
            self.top_up(live)

    def _abort(self, live: LiveRequest) -> None:
        self._abort_in_engine(live)
        live.finish_reason = "aborted"
        self.end(live, "CANCELLED")

    def _abort_in_engine(self, live: LiveRequest) -> None:
        if live.is_submitted:
            self._serving.engine.abort(live)

    def _release(self) -> None:
        """The outbox has room again: requests that were held back go on."""
        held_back, self._held_back = self._held_back, set()
        for live in held_back:
            self.top_up(live)

    def _close_when_done(self) -> None:
        if self._has_all_frames and not self._live:
            self._outbox.close()

    async def _watch_writes(self) -> None:
        limit_s = self._serving.gateway_read_limit_s
        while True:
            await asyncio.sleep(min(WRITE_CHECK_INTERVAL_S, limit_s))
            if self._outbox.blocked_for_s() > limit_s:
                log.warning("gateway does not read", requests=len(self._live), limit_s=limit_s)
                self._outbox.drop()
                self.close(
                    ExhaustedError(
                        f"the gateway read nothing for {limit_s:g} s", reason="STREAM_UNREAD"
                    )
                )
                return
