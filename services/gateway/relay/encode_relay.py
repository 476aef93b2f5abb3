"""The road of texts that are embedded or scored: admitted, in turn, on any worker that can.

A large request goes in parts, which run on as many workers as have a place. Nothing is streamed, so
a part whose worker is lost is computed again on another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from services.gateway.discovery.directory import Resolution
from services.gateway.discovery.fleet import WorkerKey
from services.gateway.links.dispatch import Dispatch
from services.gateway.links.generate_call import WORKER_HUNG
from services.gateway.links.suspects import Loss
from services.gateway.links.worker_link import WorkerLink
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import Caller
from services.gateway.relay.request_record import RequestRecord
from services.gateway.relay.suspicion import Suspicion
from services.gateway.relay.waiting_room import TurnRequest, WaitingRoom
from services.gateway.requests import requirements
from services.gateway.requests.encoding import EncodeMessage, Part
from services.mesh import status
from services.mesh.errors import (
    DeadlineError,
    MeshError,
    ModelNotFoundError,
    NoWorkerError,
    QueueFullError,
    UnavailableError,
)
from tokenmesh.worker.v1 import worker_pb2

Message = TypeVar("Message", bound=EncodeMessage)
Answer = TypeVar("Answer", worker_pb2.EmbedResponse, worker_pb2.ScoreResponse)

_ELSEWHERE = (UnavailableError, ModelNotFoundError, QueueFullError)
"""What another worker may do better."""


@dataclass(frozen=True)
class EncodeLimits:
    """How much is tried for one part.

    `max_attempts` counts workers; after `poison_deaths` that were lost with the part, no more are
    risked: they may have died of it (see `suspicion`).
    """

    max_attempts: int
    poison_deaths: int


@dataclass(frozen=True)
class Encoded(Generic[Answer]):
    """The answers to the parts, in order, and the model's own name."""

    model: str
    answers: Sequence[Answer]

    @property
    def prompt_tokens(self) -> int:
        """Of all parts."""
        return sum(each.usage.prompt_tokens for each in self.answers)


class EncodeRelay:
    """Runs what is embedded or scored.

    Args:
        request_timeout_s: the longest that a request may take, and the time of one that names none.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        admission: Admission,
        waiting_room: WaitingRoom,
        limits: EncodeLimits,
        request_timeout_s: float,
        metrics: GatewayMetrics,
    ) -> None:
        self._dispatch = dispatch
        self._admission = admission
        self._waiting_room = waiting_room
        self._limits = limits
        self._request_timeout_s = request_timeout_s
        self._metrics = metrics

    async def embed(
        self,
        parts: Sequence[Part[worker_pb2.EmbedRequest]],
        *,
        caller: Caller,
        time_left_s: float | None,
    ) -> Encoded[worker_pb2.EmbedResponse]:
        """The vectors of a validated request.

        Raises:
            QueueFullError: as much is carried, or waits, as may.
            ModelNotFoundError, NoWorkerError: as `Directory.resolve`.
            UnsupportedError: the model embeds nothing.
            DeadlineError: the time is up.
            MeshError: the worker's.
        """

        def call(link: WorkerLink, part: worker_pb2.EmbedRequest, limit_s: float) -> Awaitable[Any]:
            return link.call(link.stub.Embed(part, timeout=limit_s))

        return await self._run(
            parts,
            call,
            capability="EMBED",
            operation="embeddings",
            caller=caller,
            time_left_s=time_left_s,
        )

    async def score(
        self,
        parts: Sequence[Part[worker_pb2.ScoreRequest]],
        *,
        operation: str,
        caller: Caller,
        time_left_s: float | None,
    ) -> Encoded[worker_pb2.ScoreResponse]:
        """The scores of a validated request. `operation` is for metrics. Otherwise as `embed`."""

        def call(link: WorkerLink, part: worker_pb2.ScoreRequest, limit_s: float) -> Awaitable[Any]:
            return link.call(link.stub.Score(part, timeout=limit_s))

        return await self._run(
            parts,
            call,
            capability="SCORE",
            operation=operation,
            caller=caller,
            time_left_s=time_left_s,
        )

    async def _run(
        self,
        parts: Sequence[Part[Message]],
        call: Callable[[WorkerLink, Message, float], Awaitable[Any]],
        *,
        capability: str,
        operation: str,
        caller: Caller,
        time_left_s: float | None,
    ) -> Encoded[Any]:
        limit_s = self._request_timeout_s
        time_left_s = limit_s if time_left_s is None else min(time_left_s, limit_s)
        record = RequestRecord(self._metrics, operation)
        outcome: BaseException | None = None
        try:
            with self._admission.place(caller):
                resolution = self._dispatch.resolve(parts[0].message.model)
                record.begin(resolution.name)
                requirements.check_encoding(resolution.model, capability)
                run = _Run(self, resolution, record, caller, time.monotonic() + time_left_s, call)
                encoded = Encoded(resolution.name, await run.all(parts, time_left_s))
                record.started(worker_pb2.Started(prompt_tokens=encoded.prompt_tokens))
                return encoded
        except BaseException as error:
            outcome = error
            raise
        finally:
            record.end(outcome, was_left=isinstance(outcome, asyncio.CancelledError))

    async def part(self, run: _Run, part: Part[Any]) -> Any:
        """The answer to one part, from whichever worker gives it."""
        tried: set[WorkerKey] = set()
        suspicion = Suspicion(self._limits.poison_deaths)
        last: MeshError | None = None
        while True:
            try:
                answer = await self._begin(run, part, tried)
            except NoWorkerError as error:
                # Nobody else is there, which says less than why it failed.
                raise last or error from None
            try:
                return await self._end(run, answer)
            except _ELSEWHERE as error:
                last = error
            if isinstance(last, UnavailableError) and not isinstance(last, NoWorkerError):
                suspicion.accuse(Loss(is_silent=last.reason == WORKER_HUNG))
            if len(tried) >= self._limits.max_attempts or suspicion.is_convicted:
                raise last
            run.record.went_on(last, has_output=False)

    async def _begin(self, run: _Run, part: Part[Any], tried: set[WorkerKey]) -> Awaitable[Any]:
        """Sends a part to a worker when its turn comes. Gives the answer, to be awaited."""
        model = run.resolution.model.name
        turn = TurnRequest(model, run.caller, 0, part.cost_tokens, run.deadline_s)
        async with self._waiting_room.turn(turn):
            resolution = self._dispatch.resolve(run.resolution.name)
            link = self._dispatch.pick(resolution, tried)
            tried.add(link.key)
            part.message.model = resolution.name
            return run.call(link, part.message, run.deadline_s - time.monotonic())

    async def _end(self, run: _Run, answer: Awaitable[Any]) -> Any:
        try:
            answered = await answer
            if run.caller.rate is not None:
                run.caller.rate.charge_prompt(answered.usage.prompt_tokens)
            return answered
        except grpc.aio.AioRpcError as rpc_error:
            raise status.from_rpc_error(rpc_error) from rpc_error
        finally:
            self._waiting_room.leave(run.resolution.model.name)


@dataclass(frozen=True)
class _Run:
    """One request on its way."""

    relay: EncodeRelay
    resolution: Resolution
    record: RequestRecord
    caller: Caller
    deadline_s: float
    call: Callable[[WorkerLink, Any, float], Awaitable[Any]]

    async def all(self, parts: Sequence[Part[Any]], time_left_s: float) -> Sequence[Any]:
        """The answers to all parts, in order. The first that fails ends the others."""
        try:
            async with asyncio.timeout(time_left_s), asyncio.TaskGroup() as tasks:
                answers = [tasks.create_task(self._one(part)) for part in parts]
        except TimeoutError:
            raise _out_of_time(time_left_s) from None
        except ExceptionGroup as group:
            error = group.exceptions[0]
            raise _out_of_time(time_left_s) if isinstance(error, DeadlineError) else error from None
        return [each.result() for each in answers]

    async def _one(self, part: Part[Any]) -> Any:
        try:
            return await self.relay.part(self, part)
        except MeshError as error:
            raise part.as_asked(error) from None


def _out_of_time(time_left_s: float) -> DeadlineError:
    return DeadlineError(f"the request took longer than the {time_left_s:g} s it had")
