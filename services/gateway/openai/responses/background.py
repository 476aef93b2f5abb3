"""Makes responses that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from services.gateway.keys.current import hold_place
from services.gateway.openai.responses.background_response import BackgroundResponse
from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.output_items import IN_PROGRESS
from services.gateway.openai.responses.store.base import ResponseStore, StoredResponse
from services.gateway.relay.admission import Admission
from services.gateway.relay.background import BackgroundTasks
from services.gateway.relay.caller import Caller
from services.gateway.relay.relay import Relay
from services.mesh.errors import AbortedError, StoreError, UnavailableError
from services.mesh.interceptors import as_mesh_error
from tokenmesh.worker.v1 import worker_pb2

log = structlog.get_logger()

KEEP_ALIVE_INTERVAL_S = 1.0
"""How soon another gateway's cancel takes effect, and how often the store is swept."""

EVENTS_INTERVAL_S = 0.25
"""How far the stored events are behind. Less writes more often."""

STOP_LIMIT_S = 5.0
"""For writing down that responses were given up, once the grace period is over."""

STOPPED = "The gateway that made the response was stopped."


def per_caller(limit: int) -> int:
    """How many one caller may have made at once where there may be `limit` in all: half of them, so
    that nobody takes them all.
    """
    return (limit + 1) // 2


class BackgroundResponses:
    """Makes responses that nobody waits for. `run` has to run beside it, and `stop` to end it.

    Args:
        limit: how many at once, of all callers.
    """

    def __init__(
        self, relay: Relay, store: ResponseStore, metrics: ResponseMetrics, limit: int
    ) -> None:
        self._relay = relay
        self._store = store
        self._metrics = metrics
        self._places = Admission(limit, "background responses", limit_per_caller=per_caller(limit))
        self._tasks = BackgroundTasks()
        self._running: dict[str, BackgroundResponse] = {}
        self._is_stopping = False

    def find(self, response_id: str) -> BackgroundResponse | None:
        """One that this gateway makes just now."""
        return self._running.get(response_id)

    async def begin(
        self,
        response: BackgroundResponse,
        stored: StoredResponse,
        input_ids: Sequence[str],
        start: worker_pb2.Start,
        caller: Caller,
    ) -> None:
        """Stores a response, and begins to make it.

        Raises:
            QueueFullError: as many are made as may, of all or of this caller.
            StoreError: it could not be read when it is done.
        """
        if self._is_stopping:
            raise UnavailableError("the gateway is being stopped")
        self._places.admit(caller)
        response.let_go = hold_place()
        try:
            await self._store.put(stored, input_ids)
        except BaseException:
            self._places.release(caller)
            response.let_go()
            raise
        self._running[stored.response_id] = response
        self._metrics.background_running.inc()
        response.task = self._tasks.begin(self._make(response, start, caller))

    async def cancel(self, response: BackgroundResponse) -> None:
        """Ends one that this gateway makes, and returns once that is stored."""
        response.interrupt(as_cancelled=True)
        await asyncio.wait([response.task])

    async def run(self) -> None:
        """Keeps what is made alive in the store, and the store in its bounds, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store_all_events())
            while True:
                await asyncio.sleep(KEEP_ALIVE_INTERVAL_S)
                try:
                    await self._look_after()
                except StoreError:
                    # The store has told of it. What runs goes on: it may work again by the end.
                    continue

    async def stop(self, grace_s: float) -> None:
        """Gives running ones `grace_s` seconds, then ends them as failed."""
        self._is_stopping = True
        if not self._running:
            return
        await asyncio.wait([each.task for each in self._running.values()], timeout=grace_s)
        left = list(self._running.values())
        for response in left:
            response.interrupt(as_cancelled=False)
        if left:
            _, undone = await asyncio.wait([each.task for each in left], timeout=STOP_LIMIT_S)
            if undone:
                log.warning("background responses did not end in time", responses=len(undone))

    async def _store_all_events(self) -> None:
        while True:
            await asyncio.sleep(EVENTS_INTERVAL_S)
            for response in list(self._running.values()):
                await self._store_events(response)

    async def _look_after(self) -> None:
        await self._store.sweep()
        ids = list(self._running)
        wanted = await self._store.keep_alive(ids) if ids else set()
        for response_id in ids:
            response = self._running.get(response_id)
            if response is not None and response_id not in wanted:
                # Another gateway has cancelled or deleted it.
                response.interrupt(as_cancelled=True)

    async def _make(
        self, response: BackgroundResponse, start: worker_pb2.Start, caller: Caller
    ) -> None:
        making = response.making
        response.tell("created")
        response.tell("queued")
        try:
            try:
                await self._generate(response, start, caller)
            except asyncio.CancelledError:
                # By `cancel` or `stop`: this task ends as they wish, but not before it has said so.
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                if making.is_running and response.is_cancelled:
                    making.cancel()
                elif making.is_running:
                    making.fail(AbortedError(STOPPED), STOPPED)
            except Exception as error:
                known = as_mesh_error(error, "CreateResponse")
                making.fail(known, response.words(known))
            response.is_ending = True
            response.tell_end()
            await self._store_end(response)
        finally:
            response.end()
            del self._running[making.response_id]
            self._places.release(caller)
            response.let_go()
            self._metrics.background_running.dec()

    async def _generate(
        self, response: BackgroundResponse, start: worker_pb2.Start, caller: Caller
    ) -> None:
        making = response.making
        async with self._relay.generate(start, caller=caller) as generation:
            making.model = generation.model
            making.status = IN_PROGRESS
            response.tell("in_progress")
            await self._update(response)
            async for events in generation:
                making.take(events, time.time())
                response.publish()

    async def _update(self, response: BackgroundResponse) -> None:
        making = response.making
        try:
            await self._store.update(
                making.response_id, making.status, making.json(), making.item_ids()
            )
        except StoreError:
            # The store has told of it. Clients see the response as it was until it works again.
            self._metrics.unstored.inc()

    async def _store_events(self, response: BackgroundResponse) -> None:
        async with response.storing:
            first = response.stored_events
            new = response.events[first:]
            if not new:
                return
            try:
                await self._store.add_events(response.making.response_id, first, new)
            except StoreError:
                # The store has told of it. They come with the next ones.
                return
            response.stored_events += len(new)

    async def _store_end(self, response: BackgroundResponse) -> None:
        await self._store_events(response)
        await self._update(response)
