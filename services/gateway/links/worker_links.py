"""The links to all workers that the directory knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from services.gateway.discovery.fleet import Worker, WorkerKey
from services.gateway.links.availability import Availability
from services.gateway.links.breaker import BreakerTuning
from services.gateway.links.worker_link import OnTrip, WorkerLink
from services.gateway.relay.background import BackgroundTasks
from services.gateway.relay.turns import Turns


class WorkerLinks:
    """Opens a link to each worker, and closes it when the worker is gone and its requests ended.

    Args:
        tasks: owns the tasks that keep the links up.
        on_trip: called with each link whose breaker has tripped.
    """

    def __init__(
        self,
        tasks: BackgroundTasks,
        *,
        on_trip: OnTrip,
        tuning: BreakerTuning | None = None,
        hung_after_s: float,
    ) -> None:
        self._tasks = tasks
        self._on_trip = on_trip
        self._tuning = tuning
        self._turns = Turns()
        self.availability = Availability()
        """Announces when a worker may take requests again."""
        self._hung_after_s = hung_after_s
        self._links: dict[WorkerKey, WorkerLink] = {}
        self._closing: set[WorkerLink] = set()
        self._runs: dict[WorkerKey, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[WorkerLink]:
        return iter(tuple(self._links.values()))

    def link(self, worker: Worker) -> WorkerLink:
        """The link to a worker that `follow` has been told of."""
        return self._links[worker.key]

    def follow(self, workers: Iterable[Worker]) -> None:
        """Takes over which workers there are, and what is known of each."""
        gone = dict(self._links)
        for worker in workers:
            link = gone.pop(worker.key, None)
            if link is not None and link.address == worker.address:
                if link.describe(worker):
                    self._announce()
                continue
            if link is not None:
                self._let_go(worker.key)
            link = WorkerLink(
                worker,
                self._turns,
                tuning=self._tuning,
                on_trip=self._on_trip,
                on_available=self._announce,
                hung_after_s=self._hung_after_s,
            )
            self._links[worker.key] = link
            self._runs[worker.key] = self._tasks.begin(link.run())
            self._announce()
        for key in gone:
            self._let_go(key)

    def _let_go(self, key: WorkerKey) -> None:
        link, run = self._links.pop(key), self._runs.pop(key)
        self._closing.add(link)
        self._tasks.begin(self._close_when_idle(link, run))

    async def _close_when_idle(self, link: WorkerLink, run: asyncio.Task[None]) -> None:
        await link.wait_idle()
        self._closing.discard(link)
        run.cancel()

    def _announce(self) -> None:
        """A worker may have become available: for requests that wait, and for those to move."""
        self.availability.announce()
        for link in (*self._links.values(), *self._closing):
            if link.is_draining and link.in_flight:
                link.move_requests()
