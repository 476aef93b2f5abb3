"""Dials workers that are suspected, and expires the dead ones before their TTL has passed."""

from __future__ import annotations

import asyncio

import structlog

from services.controller.clock import LeaseClock
from services.controller.dialling import dial
from services.controller.keeper import LeaseKeeper
from services.controller.leases import Lease
from services.controller.settings import ControllerSettings
from services.controller.suspicion import Verdict, judge

log = structlog.get_logger()

# Between two dials of one worker, so that a flood of reports costs two connections a second.
REST_S = 0.5


class Prober:
    """Looks into suspicions: one worker at a time each, and as many at once as may be dialled."""

    def __init__(
        self, settings: ControllerSettings, keeper: LeaseKeeper, clock: LeaseClock
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._clock = clock
        self._suspected_at_s: dict[str, float] = {}
        self._probed: set[str] = set()
        self._woken = asyncio.Event()
        self._dials = asyncio.Semaphore(settings.max_dials)
        # A dial that outlasts half an interval would delay the verdict beyond the next heartbeat.
        self._limit_s = min(settings.dial_limit_s, settings.heartbeat_interval_s / 2)

    def suspect(self, worker_id: str, incarnation: str, why: str) -> None:
        """Has the worker dialled soon. Ignored when that incarnation holds no lease."""
        lease = self._keeper.lease_of(worker_id)
        if lease is None or lease.incarnation != incarnation:
            return
        if worker_id not in self._suspected_at_s:
            log.warning("worker suspected", worker_id=worker_id, why=why)
        self._suspected_at_s[worker_id] = self._clock.now_s()
        self._woken.set()

    async def run(self) -> None:
        """Dials who is suspected, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._woken.wait()
                self._woken.clear()
                for worker_id in self._suspected_at_s.keys() - self._probed:
                    self._probed.add(worker_id)
                    tasks.create_task(self._probe(worker_id))

    async def _probe(self, worker_id: str) -> None:
        try:
            while (suspected_at_s := self._suspected_at_s.pop(worker_id, None)) is not None:
                await self._settle(worker_id, suspected_at_s)
                await asyncio.sleep(REST_S)
        finally:
            self._probed.discard(worker_id)

    async def _settle(self, worker_id: str, suspected_at_s: float) -> None:
        """Dials until the verdict is clear. Ends with the lease at the latest."""
        suspected = self._keeper.lease_of(worker_id)
        while suspected is not None:
            lease = self._keeper.lease_of(worker_id)
            if lease is None or lease.lease_id != suspected.lease_id:
                return
            verdict = await self._dial(lease, suspected_at_s)
            log.info("suspected worker dialled", worker_id=worker_id, verdict=verdict.value)
            if verdict is Verdict.TRUST:
                return
            if verdict is Verdict.EXPIRE:
                self._keeper.expire_early(lease)
                return
            await asyncio.sleep(REST_S)

    async def _dial(self, lease: Lease, suspected_at_s: float) -> Verdict:
        worker = self._keeper.registry.get(lease.worker_id)
        if worker is None:
            return Verdict.TRUST
        async with self._dials:
            dialled = await dial(worker.address, self._limit_s)
        now = self._keeper.lease_of(lease.worker_id)
        if now is None or now.lease_id != lease.lease_id:
            return Verdict.TRUST
        return judge(
            dialled,
            attached=self._keeper.is_attached(lease),
            suspected_at_s=suspected_at_s,
            renewed_at_s=now.renewed_at_s,
            now_s=self._clock.now_s(),
            heartbeat_interval_s=self._settings.heartbeat_interval_s,
        )
