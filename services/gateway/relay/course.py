"""Which worker a request runs on, and where it goes on when that one fails it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from services.gateway.discovery.fleet import WorkerKey
from services.gateway.links.attempt import Attempt
from services.gateway.links.dispatch import Dispatch
from services.gateway.links.variant import Variant
from services.gateway.relay.delivery import Delivery
from services.gateway.relay.persistence import Persistence, PersistenceLimits
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.request_record import RequestRecord
from services.gateway.relay.spending import Spending
from services.gateway.relay.suspicion import Suspicion
from services.mesh.errors import MeshError, PoisonRequestError, RateLimitedError
from tokenmesh.worker.v1 import worker_pb2

PROBATION_WAIT_S = 5.0
"""How long a suspect waits for a worker without another one, where there are workers. Longer keeps
more suspects apart; shorter has those behind them wait less."""

LOOK_AGAIN_S = 0.25
"""How soon a request that waits for a worker asks again those that have refused it."""


@dataclass(frozen=True)
class GenerationLimits:
    """What a gateway allows each request."""

    credit_window_tokens: int
    persistence: PersistenceLimits = field(default_factory=PersistenceLimits)
    poison_deaths: int = 2
    """Workers in a row that die of a request until it is stopped. 0 for never."""


class Course:
    """The workers of one request, one after the other.

    Args:
        start: what the request asks for; its seed is set.
        seed_was_drawn: whether the gateway has drawn it.
        deadline_s: when the request's time is up, on the monotonic clock.
        delivery: what the client has, from which another worker goes on.
        spending: pays for the credit that workers get.
    """

    def __init__(
        self,
        start: worker_pb2.Start,
        *,
        seed_was_drawn: bool,
        deadline_s: float,
        delivery: Delivery,
        record: RequestRecord,
        spending: Spending,
        dispatch: Dispatch,
        quarantine: Quarantine,
        limits: GenerationLimits,
    ) -> None:
        self.attempt: Attempt
        """The request on its present worker, once it has begun."""
        self._start = start
        self._seed_was_drawn = seed_was_drawn
        self._deadline_s = deadline_s
        self._delivery = delivery
        self._record = record
        self._dispatch = dispatch
        self._quarantine = quarantine
        self._spending = spending
        self._window_tokens = start.credit_tokens = spending.window_tokens
        self._granted_tokens = 0
        self._persistence = Persistence(limits.persistence)
        self._suspicion = Suspicion(limits.poison_deaths)
        self._failed_by: set[WorkerKey] = set()
        self._worker: WorkerKey
        self._variant: Variant | None = None
        self._ended_with: MeshError | None = None

    def begin(self, *, alone: bool = True) -> None:
        """Starts the request, or goes on with it, on a worker that has not failed it of late. A
        suspect runs `alone` among suspects, where that is asked for.

        Raises:
            PoisonRequestError: workers have died of it.
            MeshError: no worker is there for it.
        """
        self._quarantine.check(self._start, seed_was_drawn=self._seed_was_drawn)
        resolution = self._dispatch.resolve(self._start.model)
        suspected = alone and self._suspicion.is_suspect
        link = self._dispatch.pick(
            resolution, self._failed_by, self._start, like=self._like, on_probation=suspected
        )
        self._variant = self._like or link.variants[resolution.model.name]
        self._worker = link.key
        self._granted_tokens = self._window_tokens
        time_left_s = max(0.0, self._deadline_s - time.monotonic())
        self._start.time_left.FromNanoseconds(round(time_left_s * 1e9))
        first_numbers = self._delivery.move(self._start)
        self.attempt = link.start(self._start, first_numbers, on_probation=suspected)
        self.attempt.is_movable = self._is_movable
        self._spending.begin(self._delivery.completion_tokens())

    def end(self, error: MeshError) -> None:
        """Gives the request up where it runs. Whoever waits for it gets the error."""
        self._ended_with = error
        self.attempt.abort(error)

    def note_tokens(self, tokens: int) -> None:
        """The client has got so many tokens of one choice from the present worker. Gives credit
        back once half of it is used, so that the worker never waits for it, unless its caller is
        over its rate.
        """
        self._spending.pay_prompt(self._record.prompt_tokens)
        half = self._window_tokens // 2
        if self._granted_tokens - tokens <= half:
            if tokens >= self._granted_tokens:
                self.attempt.is_measurable = False
            self._granted_tokens += half
            self._give_credit(half)
        if self._failed_by:
            # The present worker does well: those that failed before it may be asked again.
            self._failed_by.clear()
            self._persistence.progress()
            self._suspicion.clear()

    def _give_credit(self, tokens: int) -> None:
        """Gives the present worker credit, when its caller may have it; or ends the request."""
        try:
            wait_s = self._spending.extend(tokens)
        except RateLimitedError as error:
            self.end(error)
            return
        if wait_s:
            self.attempt.is_measurable = False
            loop = asyncio.get_running_loop()
            # An attempt that is over by then takes no notice.
            loop.call_later(wait_s, self.attempt.grant_credit, tokens)
        else:
            self.attempt.grant_credit(tokens)

    async def go_on(self, error: MeshError) -> None:
        """Has another worker go on.

        Raises:
            PoisonRequestError: its workers have died of it.
            MeshError: the one given, where it must not go on or no worker came in time; or what the
                request was ended with.
        """
        if self._ended_with is not None:
            raise self._ended_with
        self._weigh_suspicion()
        has_output = self._delivery.has_output
        self._persistence.fail(error, time.monotonic(), has_output=has_output)
        self._failed_by.add(self._worker)
        if not self._has_begun():
            with self._record.waiting():
                await self._wait_for_worker(error)
        self._record.went_on(error, has_output=has_output)

    def _weigh_suspicion(self) -> None:
        if self.attempt.loss is not None:
            self._suspicion.accuse(self.attempt.loss)
            if self._suspicion.is_convicted:
                self._quarantine.add(self._start, seed_was_drawn=self._seed_was_drawn)
                self._record.convicted()
                raise self._quarantine.error()

    async def _wait_for_worker(self, error: MeshError) -> None:
        """Begins on the first worker that comes, or raises the error when none does in time."""
        now_s = time.monotonic()
        waits_for_others = self._suspicion.is_suspect and self._is_movable()
        until_s = now_s + max(
            self._persistence.wait_s(now_s), PROBATION_WAIT_S if waits_for_others else 0.0
        )
        while (left_s := until_s - time.monotonic()) > 0:
            await self._dispatch.wait_for_change(min(left_s, LOOK_AGAIN_S))
            if self._ended_with is not None:
                raise self._ended_with
            if self._has_begun(ask_all=True):
                return
        if not (waits_for_others and self._has_begun(alone=False)):
            # Nobody else is there, which says less than why it failed.
            raise error

    def _has_begun(self, *, alone: bool = True, ask_all: bool = False) -> bool:
        """Whether another worker has taken it; with `ask_all` one that failed it, too."""
        failed_by = self._failed_by
        if ask_all:
            self._failed_by = set()
        try:
            self.begin(alone=alone)
        except PoisonRequestError:
            raise
        except MeshError:
            return False
        finally:
            self._failed_by = failed_by
        return True

    def _is_movable(self) -> bool:
        """Whether another worker could go on with it just now."""
        try:
            resolution = self._dispatch.resolve(self._start.model)
        except MeshError:
            return False
        return self._dispatch.can_go_on(resolution, like=self._like)

    @property
    def _like(self) -> Variant | None:
        """What has begun the output. Without any, every variant of the model may begin."""
        return self._variant if self._delivery.has_output else None
