"""One bidirectional stream, from the controller's side: both directions, and every way to end.

The handler's task writes, a child task reads. Both end together: the first reason to end, whichever
side it comes from, is what the peer sees.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from services.mesh.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidRequestError,
    MeshError,
    ProtocolError,
    UnavailableError,
)

Frame = TypeVar("Frame")
Received = TypeVar("Received", bound=Message)
Frame_co = TypeVar("Frame_co", covariant=True)

# A peer that takes nothing off its connection for so long is not there any more. Longer keeps its
# place for nothing; shorter cuts off one that was only paused.
WRITE_LIMIT_S = 10.0


def stopping() -> UnavailableError:
    """What every stream ends with when the controller stops."""
    return UnavailableError(
        "the controller is stopping; connect again",
        reason="CONTROLLER_STOPPING",
        retry_after_s=0.1,
    )


def stream_unread() -> ExhaustedError:
    """What a stream ends with when its peer does not read."""
    return ExhaustedError("what is sent on this stream is not read", reason="STREAM_UNREAD")


def frame_empty() -> InvalidRequestError:
    """What a stream ends with that carries a frame without content."""
    return InvalidRequestError(
        "the frame is empty, or of a kind that this controller does not know",
        reason="FRAME_EMPTY",
        field="frame",
    )


async def first_frame(frames: AsyncIterator[Received], kind: str, limit_s: float) -> Received:
    """The frame that opens a stream, which must be of this kind, such as "hello".

    Raises:
        ProtocolError: it is of another kind, or the peer sends nothing (HELLO_EXPECTED).
        DeadlineError: it did not come within `limit_s` seconds (HELLO_EXPECTED).
    """
    name = kind.capitalize()
    reason = f"{kind.upper()}_EXPECTED"
    try:
        async with asyncio.timeout(limit_s):
            frame = await anext(frames, None)
    except TimeoutError:
        raise DeadlineError(f"no {name} came within {limit_s:g} s", reason=reason) from None
    got = frame.WhichOneof("frame") if frame is not None else None
    if frame is None or got != kind:
        raise ProtocolError(f"the first frame must be a {name}; got {got or 'none'}", reason=reason)
    return frame


class Ending:
    """Why a stream ends: once, by whoever comes first."""

    def __init__(self) -> None:
        self.closed = False
        self.error: MeshError | None = None
        self.changed = asyncio.Event()

    def close(self, error: MeshError | None = None) -> None:
        """Ends the stream: with OK, or with the error. A stream that has ended stays as it is."""
        if not self.closed:
            self.closed = True
            self.error = error
            self.changed.set()


class Outgoing(Protocol[Frame_co]):
    """The frames towards the peer, until the stream ends."""

    ending: Ending

    def __aiter__(self) -> AsyncIterator[Frame_co]:
        """The frames, in order. Ends when the stream does."""
        ...


class FrameQueue(Generic[Frame]):
    """Frames that wait to be written, at most `limit`. One that does not fit ends the stream."""

    def __init__(self, limit: int) -> None:
        self.ending = Ending()
        self._limit = limit
        self._frames: deque[Frame] = deque()

    def put(self, frame: Frame) -> None:
        """Queues a frame. Drops it when the stream has ended or ends by it."""
        if len(self._frames) >= self._limit:
            self.ending.close(stream_unread())
            return
        self._frames.append(frame)
        self.ending.changed.set()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while True:
            await self.ending.changed.wait()
            self.ending.changed.clear()
            while self._frames and self.ending.error is None:
                yield self._frames.popleft()
            if self.ending.closed:
                return


async def hold(
    context: grpc.aio.ServicerContext[Any, Frame_co],
    outgoing: Outgoing[Frame_co],
    reading: Coroutine[Any, Any, None],
    *,
    unread: Callable[[], MeshError] = stream_unread,
) -> None:
    """Reads and writes until the stream ends.

    `reading` ends the stream by raising a MeshError, or by closing `outgoing`; returning leaves the
    other direction open. A peer that reads nothing for WRITE_LIMIT_S is sent away with `unread()`.

    Raises:
        MeshError: what the stream ended with, unless it was OK.
    """
    ending = outgoing.ending

    async def read() -> None:
        try:
            await reading
        except MeshError as error:
            ending.close(error)

    try:
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read())
            async for frame in outgoing:
                try:
                    async with asyncio.timeout(WRITE_LIMIT_S):
                        await context.write(frame)
                except TimeoutError:
                    ending.close(unread())
            reader.cancel()
    finally:
        # A stream may end before its reader has run for the first time.
        reading.close()
    if ending.error is not None:
        raise ending.error
