"""How a stream ends: once, for the first reason, and when its peer does not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.controller import streams
from services.controller.streams import Ending, FrameQueue, hold, stopping
from services.mesh.errors import MeshError, ProtocolError


class Peer:
    """The writing side of a call: takes frames until it is deaf."""

    def __init__(self, *, deaf_after: int = 1_000) -> None:
        self.taken: list[int] = []
        self._deaf_after = deaf_after

    async def write(self, frame: int) -> None:
        if len(self.taken) >= self._deaf_after:
            await asyncio.Event().wait()
        self.taken.append(frame)


async def forever() -> None:
    await asyncio.Event().wait()


async def held(peer: Any, queue: FrameQueue[int]) -> MeshError | None:
    """What the stream ended with."""
    try:
        await hold(peer, queue, forever())
    except MeshError as error:
        return error
    return None


def test_the_first_reason_counts() -> None:
    ending = Ending()
    ending.close()
    ending.close(stopping())
    assert ending.closed
    assert ending.error is None


@pytest.mark.parametrize(("frames", "fits"), [(3, True), (4, False)])
def test_a_full_queue_ends_the_stream(frames: int, fits: bool) -> None:
    queue: FrameQueue[int] = FrameQueue(limit=3)
    for frame in range(frames):
        queue.put(frame)
    assert queue.ending.closed is not fits
    assert (queue.ending.error is None) is fits
    if queue.ending.error is not None:
        assert queue.ending.error.reason == "STREAM_UNREAD"


async def test_a_stream_that_ends_well_sends_what_it_has() -> None:
    peer, queue = Peer(), FrameQueue[int](limit=3)
    for frame in range(3):
        queue.put(frame)
    queue.ending.close()
    assert await held(peer, queue) is None
    assert peer.taken == [0, 1, 2]


async def test_a_stream_that_ends_badly_sends_no_more() -> None:
    peer, queue = Peer(), FrameQueue[int](limit=3)
    queue.put(0)
    queue.ending.close(stopping())
    error = await held(peer, queue)
    assert error is not None
    assert error.reason == "CONTROLLER_STOPPING"
    assert peer.taken == []


async def test_a_peer_that_stops_reading_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_LIMIT_S", 0.01)
    peer, queue = Peer(deaf_after=1), FrameQueue[int](limit=10)
    for frame in range(5):
        queue.put(frame)
    error = await held(peer, queue)
    assert error is not None
    assert error.reason == "STREAM_UNREAD"
    assert peer.taken == [0]


async def test_what_reading_raises_ends_the_stream() -> None:
    async def read() -> None:
        raise ProtocolError("no", reason="FIRST")

    with pytest.raises(ProtocolError) as caught:
        await hold(Peer(), FrameQueue[int](limit=1), read())  # type: ignore[arg-type]
    assert caught.value.reason == "FIRST"
