"""One worker's Attach stream: what is sent down on it, and the commands that await an outcome."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from services.controller.leases import Lease
from services.controller.streams import FrameQueue
from services.mesh.errors import DeadlineError, ExhaustedError, MeshError, WorkerLostError
from tokenmesh.controller.v1 import registry_pb2

# Every frame down answers a frame up or is a command, and workers read them at once. A worker that
# lets so many pile up does not read.
MAX_WAITING_FRAMES = 64
MAX_WAITING_COMMANDS = 16

MakeCommand = Callable[[str], registry_pb2.AttachResponse]


class AttachStream:
    """The stream of a worker, before and after its lease is granted."""

    def __init__(self) -> None:
        self.outgoing: FrameQueue[registry_pb2.AttachResponse] = FrameQueue(MAX_WAITING_FRAMES)
        self.lease: Lease | None = None
        self._outcomes: dict[str, asyncio.Future[MeshError | None]] = {}

    def close(self, error: MeshError | None = None) -> None:
        """Ends the stream, and with it the commands that wait on it."""
        self.outgoing.ending.close(error)
        lost = WorkerLostError(
            "the worker's Attach stream ended before it answered; try again once it has attached",
            retry_after_s=1.0,
        )
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_result(lost)

    async def command(self, make: MakeCommand, limit_s: float) -> None:
        """Sends the worker a command, made with a new command id, and waits for its outcome.

        Raises:
            MeshError: what the worker answered.
            WorkerLostError: the stream ended first.
            DeadlineError: no outcome within `limit_s` seconds (COMMAND_UNANSWERED).
            ExhaustedError: too many commands wait already (COMMANDS_EXHAUSTED).
        """
        if len(self._outcomes) >= MAX_WAITING_COMMANDS:
            raise ExhaustedError(
                f"{MAX_WAITING_COMMANDS} commands wait for this worker already",
                reason="COMMANDS_EXHAUSTED",
                retry_after_s=1.0,
            )
        command_id = uuid.uuid4().hex
        outcome: asyncio.Future[MeshError | None] = asyncio.get_running_loop().create_future()
        self._outcomes[command_id] = outcome
        try:
            self.outgoing.put(make(command_id))
            async with asyncio.timeout(limit_s):
                error = await outcome
        except TimeoutError:
            raise DeadlineError(
                f"the worker did not answer within {limit_s:g} s; it may yet do what was asked",
                reason="COMMAND_UNANSWERED",
            ) from None
        finally:
            del self._outcomes[command_id]
        if error is not None:
            raise error

    def settle(self, command_id: str, error: MeshError | None) -> bool:
        """Ends the wait for a command. Whether somebody did wait."""
        outcome = self._outcomes.get(command_id)
        if outcome is None or outcome.done():
            return False
        outcome.set_result(error)
        return True
