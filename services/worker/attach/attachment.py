"""Attach: holds this worker's lease at one controller, for as long as the worker runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass

import grpc
import structlog
from google.protobuf import duration_pb2
from google.rpc import status_pb2

from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError, ProtocolError, UnavailableError, UnsupportedError
from services.mesh.interceptors import as_mesh_error
from services.mesh.release import PROTOCOL_VERSION, RELEASE
from services.worker.attach.drain import Drain
from services.worker.attach.identity import Identity
from services.worker.attach.lease_call import LeaseCall
from services.worker.attach.serving_state import ServingState
from services.worker.attach.throughput import Throughput
from services.worker.engines.base import Engine
from services.worker.metrics import WorkerMetrics
from services.worker.translation.models import capacity_of, load_of, models_of
from tokenmesh.controller.v1 import registry_pb2

log = structlog.get_logger()

# Both stay well below the heartbeat interval (2 s by default), so that a controller that was
# restarted knows every worker within one interval. Jitter spreads the workers of a large mesh.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 0.5
# Whatever a controller asks for, it is not to keep a worker busy with heartbeats.
HEARTBEAT_INTERVAL_MIN_S = 0.01
# How long a controller may take to answer a Hello; it dials the worker before.
GRANT_LIMIT_S = 10.0
# How long leaving may take: a controller that is gone must not hold the shutdown up.
LEAVE_LIMIT_S = 1.0

COMMANDS = frozenset({"drain", "resume", "load_adapter", "unload_adapter"})


@dataclass(frozen=True)
class Attached:
    """What the attachments of a worker share."""

    identity: Identity
    engine: Engine
    state: ServingState
    drain: Drain
    metrics: WorkerMetrics


class Attachment:
    """The lease at one controller. `run` attaches again whenever the stream breaks."""

    def __init__(self, controller: str, attached: Attached) -> None:
        """`controller` is "host:port"."""
        self.controller = controller
        self.granted = asyncio.Event()
        self._attached = attached
        self._last_complaint = ""

    async def run(self) -> None:
        """Holds the lease until the worker leaves."""
        state = self._attached.state
        retry_s = RETRY_FIRST_S
        async with open_channel(self.controller) as channel:
            while not state.is_leaving:
                change = state.next_change
                self.granted.clear()
                try:
                    await self._hold_lease(channel)
                except Exception as error:
                    self._complain(as_mesh_error(error, "Attach"))
                finally:
                    self._attached.metrics.attached(self.controller, False)
                if self.granted.is_set():
                    retry_s = RETRY_FIRST_S
                if not state.is_leaving:
                    await _wait(change, retry_s * random.uniform(0.75, 1.0))
                retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _hold_lease(self, channel: grpc.aio.Channel) -> None:
        """One Attach call, from Hello to its end.

        Raises:
            MeshError: the stream broke, or the controller refused the worker.
        """
        with LeaseCall(channel) as call:
            try:
                async with asyncio.timeout(GRANT_LIMIT_S):
                    await call.send(self._hello())
                    response = await call.read()
            except TimeoutError:
                raise UnavailableError(
                    f"the controller did not answer the Hello within {GRANT_LIMIT_S:g} s"
                ) from None
            if not response.HasField("lease_granted"):
                raise ProtocolError("the controller answered the Hello with something else")
            call.lease_id = response.lease_id
            granted = response.lease_granted
            self._note_grant(granted)
            listening = asyncio.create_task(self._listen(call))
            interval_s = max(HEARTBEAT_INTERVAL_MIN_S, _seconds(granted.heartbeat_interval))
            beating = asyncio.create_task(self._beat(call, interval_s))
            tasks = (beating, listening)
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if listening not in done:
                    beating.result()
                    done, _ = await asyncio.wait({listening}, timeout=LEAVE_LIMIT_S)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self, call: LeaseCall, interval_s: float) -> None:
        """Sends a heartbeat each interval and at each change of state; at last, Leaving."""
        engine = self._attached.engine
        state = self._attached.state
        throughput = Throughput(engine.load().generated_tokens, time.monotonic())
        number = 0
        while not state.is_leaving:
            change = state.next_change
            number += 1
            rate = throughput.tokens_per_second(engine.load().generated_tokens, time.monotonic())
            await call.send(
                registry_pb2.Heartbeat(
                    number=number, load=load_of(engine, rate), state=self._state()
                )
            )
            await _wait(change, interval_s)
        await call.send(registry_pb2.Leaving(reason="the worker is stopping"))

    async def _listen(self, call: LeaseCall) -> None:
        """Executes commands until the stream ends."""
        while True:
            response = await call.read()
            if response.WhichOneof("frame") in COMMANDS:
                await call.send(self._execute(response))

    def _execute(self, response: registry_pb2.AttachResponse) -> registry_pb2.CommandOutcome:
        command = str(response.WhichOneof("frame"))
        log.info("command", command=command, controller=self.controller)
        outcome = status_pb2.Status()
        try:
            if response.HasField("drain"):
                drain = response.drain
                has_grace = drain.HasField("grace_period")
                self._attached.drain.begin(_seconds(drain.grace_period) if has_grace else None)
            elif response.HasField("resume"):
                self._attached.drain.resume()
            else:
                raise UnsupportedError(f"the {self._attached.engine.name} engine takes no adapters")
        except Exception as error:
            outcome = status.to_status(as_mesh_error(error, command))
        return registry_pb2.CommandOutcome(
            command_id=getattr(response, command).command_id, status=outcome
        )

    def _hello(self) -> registry_pb2.Hello:
        identity = self._attached.identity
        return registry_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            worker_id=identity.worker_id,
            incarnation=identity.incarnation,
            address=identity.address,
            models=models_of(self._attached.engine),
            capacity=capacity_of(self._attached.engine, identity.speed),
            state=self._state(),
            labels=identity.labels,
            release=RELEASE,
        )

    def _state(self) -> registry_pb2.WorkerState.ValueType:
        if self._attached.state.is_draining:
            return registry_pb2.WORKER_STATE_DRAINING
        return registry_pb2.WORKER_STATE_SERVING

    def _note_grant(self, granted: registry_pb2.LeaseGranted) -> None:
        self.granted.set()
        self._last_complaint = ""
        self._attached.metrics.attached(self.controller, True)
        kind = registry_pb2.Attachment.Name(granted.attachment).removeprefix("ATTACHMENT_")
        log.info(
            "attached",
            controller=self.controller,
            controller_id=granted.controller_id,
            attachment=kind.lower(),
        )

    def _complain(self, error: MeshError) -> None:
        """Logs why there is no lease: once, not for each try that ends the same way."""
        complaint = f"{error.code} {error.reason}"
        if self._attached.state.is_leaving or complaint == self._last_complaint:
            return
        self._last_complaint = complaint
        log.warning(
            "not attached",
            controller=self.controller,
            reason=error.reason,
            error=error.message,
        )


async def _wait(change: asyncio.Event, limit_s: float) -> None:
    """Returns at the change, or after `limit_s` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await change.wait()


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
