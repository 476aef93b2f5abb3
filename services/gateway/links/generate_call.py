"""One Generate stream to a worker, from its opening until it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import structlog

from services.gateway.links.attempt import RETRY_AFTER_S
from services.gateway.links.liveness import LOOKS_UNTIL_HUNG, Liveness, Verdict
from services.gateway.links.outgoing import Outgoing
from services.mesh import status
from services.mesh.errors import WorkerLostError
from services.mesh.server import is_answering
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

log = structlog.get_logger()

WORKER_HUNG = "WORKER_HUNG"

Call = grpc.aio.StreamStreamCall[worker_pb2.GenerateRequest, worker_pb2.GenerateResponse]


class GenerateCall:
    """Writes frames, reads responses, and notices when the worker hangs.

    Args:
        worker_id: for messages.
        outgoing: what is to be written.
        receive: takes each response.
        busy: set while requests run there, so that the worker owes something.
        hung_after_s: how long a worker that owes something may be silent, although it is asked.
    """

    def __init__(
        self,
        worker_id: str,
        *,
        outgoing: Outgoing,
        receive: Callable[[worker_pb2.GenerateResponse], None],
        busy: asyncio.Event,
        hung_after_s: float,
    ) -> None:
        self._worker_id = worker_id
        self._outgoing = outgoing
        self._receive = receive
        self._busy = busy
        self._hung_after_s = hung_after_s
        self._liveness = Liveness()
        self._hung: WorkerLostError | None = None

    async def run(
        self, channel: grpc.aio.Channel, stub: worker_pb2_grpc.WorkerServiceAsyncStub
    ) -> WorkerLostError:
        """Holds the stream. Returns why it broke."""
        call = stub.Generate()
        async with asyncio.TaskGroup() as tasks:
            beside = (
                tasks.create_task(self._write(call)),
                tasks.create_task(self._watch(call, channel)),
            )
            try:
                error = await self._read(call)
                return self._hung or error
            finally:
                for task in beside:
                    task.cancel()
                call.cancel()

    async def _read(self, call: Call) -> WorkerLostError:
        receive, hear = self._receive, self._liveness.hear
        try:
            async for response in call:
                hear()
                receive(response)
        except asyncio.CancelledError:
            # grpc.aio raises it also for a call that was cancelled by itself.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return self._lost("its stream was cancelled")
        except grpc.aio.AioRpcError as error:
            return self._lost(status.from_rpc_error(error).message)
        except Exception as error:
            # Whatever a worker sends, it must not end the gateway.
            log.exception("cannot read the worker's stream", worker=self._worker_id)
            return self._lost(f"its stream cannot be read: {type(error).__name__}")
        return self._lost("it ended the stream")

    async def _write(self, call: Call) -> None:
        try:
            while True:
                await call.write(await self._outgoing.take())
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The stream is over; the reader learns why.
            return

    async def _watch(self, call: Call, channel: grpc.aio.Channel) -> None:
        """Looks at the worker while it owes something, and ends the stream when it hangs."""
        async with asyncio.TaskGroup() as asks:
            ask: asyncio.Task[None] | None = None
            while True:
                await self._busy.wait()
                await asyncio.sleep(self._hung_after_s / LOOKS_UNTIL_HUNG)
                verdict = self._liveness.look(is_owed=self._busy.is_set())
                if verdict is Verdict.ASK and (ask is None or ask.done()):
                    ask = asks.create_task(self._ask(channel))
                elif verdict is Verdict.GIVE_UP:
                    self._hung = self._lost(
                        f"it has sent and answered nothing for {self._hung_after_s:g} s",
                        WORKER_HUNG,
                    )
                    call.cancel()
                    return

    async def _ask(self, channel: grpc.aio.Channel) -> None:
        """Asks for the worker's health: any answer shows that its event loop runs."""
        # The watch gives up before the call does.
        if await is_answering(channel, 2 * self._hung_after_s):
            self._liveness.hear()

    def _lost(self, why: str, reason: str | None = None) -> WorkerLostError:
        return WorkerLostError(
            f"worker {self._worker_id} was lost: {why}", reason=reason, retry_after_s=RETRY_AFTER_S
        )
