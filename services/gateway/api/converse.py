"""ChatService.Converse: turns and interrupts in, events out, the conversation kept in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import NoReturn, TypeVar

from services.gateway.api.answer import Answer, Response
from services.gateway.api.conversation import Conversation
from services.gateway.relay.caller import Caller
from services.gateway.relay.generation import Generation
from services.gateway.relay.relay import Relay
from services.gateway.requests import validation
from services.mesh import status
from services.mesh.errors import InvalidRequestError, MeshError, ProtocolError, UnauthenticatedError
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.worker.v1 import worker_pb2

Request = chat_pb2.ConverseRequest
Events = Sequence[worker_pb2.SequenceEvent]
Item = TypeVar("Item")


class Converse:
    """One Converse stream.

    Args:
        requests: the client's frames.
        begin_turn: lets a turn in, for a model and one of the caller's users, and says who asks.
        time_left_s: how long the client gives a turn that begins now; None for no limit of its own.
    """

    def __init__(
        self,
        relay: Relay,
        requests: AsyncIterator[Request],
        *,
        request_id: str,
        begin_turn: Callable[[str, str], Caller],
        time_left_s: Callable[[], float | None],
    ) -> None:
        self._relay = relay
        self._requests = aiter(requests)
        self._request_id = request_id
        self._begin_turn = begin_turn
        self._time_left_s = time_left_s
        self._frame: asyncio.Task[Request | None] | None = None
        self._generation: Generation | None = None

    def abandon(self) -> None:
        """Ends the answer that is being given, if any."""
        if self._generation is not None:
            self._generation.abandon()

    async def responses(self) -> AsyncIterator[Response]:
        """The events of all turns, until the client sends no more.

        Raises:
            ProtocolError: the first frame is no Open (OPEN_EXPECTED), or a further one is
                (OPEN_REPEATED).
            InvalidRequestError: the Open is not valid, or a frame is empty.
            UnauthenticatedError: the key counts no more when a turn comes.
        """
        try:
            first = await self._next_frame()
            if first is None:
                return
            if first.WhichOneof("frame") != "open":
                raise ProtocolError("the first frame must be Open", reason="OPEN_EXPECTED")
            conversation = Conversation(first.open)
            while (frame := await self._next_frame()) is not None:
                kind = frame.WhichOneof("frame")
                if kind == "turn":
                    async for response in self._answer(conversation, frame.turn):
                        yield response
                elif kind != "interrupt":
                    _refuse(kind)
        finally:
            await self._stop_reading()

    async def _answer(
        self, conversation: Conversation, turn: Request.Turn
    ) -> AsyncIterator[Response]:
        """The events of one turn. A failed one leaves the conversation as it was."""
        answer = Answer(turn.number)
        try:
            caller = self._begin_turn(conversation.model, conversation.user)
            request = conversation.request(turn)
            start = validation.chat_start(request, self._request_id)
            async with self._relay.generate(
                start, caller=caller, time_left_s=self._time_left_s()
            ) as generation:
                self._generation = generation
                async with aclosing(self._steps(generation)) as steps:
                    async for step in steps:
                        if not isinstance(step, Request):
                            for response in answer.take(generation, step):
                                yield response
                        elif step.WhichOneof("frame") == "interrupt":
                            break
                        else:
                            yield _refused_turn(step)
        except UnauthenticatedError:
            raise
        except MeshError as error:
            yield Response(turn_number=turn.number, failed=_failed(error))
            return
        conversation.add(turn.messages, answer.message())
        yield answer.end()

    async def _steps(self, generation: Generation) -> AsyncGenerator[Events | Request]:
        """The events of a generation, and the frames that come meanwhile."""
        while True:
            step = asyncio.create_task(_next(generation))
            try:
                while not step.done():
                    frame = self._reading()
                    await asyncio.wait((step, frame), return_when=asyncio.FIRST_COMPLETED)
                    if frame.done() and (request := frame.result()) is not None:
                        self._frame = None
                        yield request
                    elif frame.done():
                        # The client sends no more; the answer goes on.
                        await asyncio.wait((step,))
            finally:
                step.cancel()
            events = step.result()
            if events is None:
                return
            yield events

    async def _next_frame(self) -> Request | None:
        """The client's next frame; None when it sends no more."""
        frame = await self._reading()
        self._frame = None
        return frame

    def _reading(self) -> asyncio.Task[Request | None]:
        """The read in progress, so that one that an answer began is not lost at its end."""
        if self._frame is None:
            self._frame = asyncio.create_task(_next(self._requests))
        return self._frame

    async def _stop_reading(self) -> None:
        if self._frame is not None:
            self._frame.cancel()
            await asyncio.wait((self._frame,))
        # Left open, gRPC's iterator would be closed by the garbage collector, at any time.
        if isinstance(self._requests, AsyncGenerator):
            await self._requests.aclose()


async def _next(items: AsyncIterator[Item]) -> Item | None:
    return await anext(items, None)


def _refused_turn(frame: Request) -> Response:
    """Tells the client that its turn has to wait for the end of the answer."""
    kind = frame.WhichOneof("frame")
    if kind != "turn":
        _refuse(kind)
    error = ProtocolError(
        "an answer is being given: interrupt it, or wait for its end", reason="TURN_IN_PROGRESS"
    )
    return Response(turn_number=frame.turn.number, failed=_failed(error))


def _failed(error: MeshError) -> Response.Failed:
    number, _ = status.grpc_code(error).value
    failed = Response.Failed(
        code=number, reason=error.reason, message=error.message, field=error.field or ""
    )
    if error.retry_after_s is not None:
        failed.retry_after.FromMilliseconds(round(error.retry_after_s * 1000))
    return failed


def _refuse(kind: str | None) -> NoReturn:
    if kind == "open":
        raise ProtocolError("the conversation is already open", reason="OPEN_REPEATED")
    raise InvalidRequestError(
        "frame must be set: turn or interrupt", reason="FRAME_EMPTY", field="frame"
    )
