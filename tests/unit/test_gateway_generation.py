"""A generation whose worker, client and deadline meet at awkward moments."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.discovery.directory import Resolution
from services.gateway.links.attempt import Attempt
from services.gateway.links.dispatch import Dispatch
from services.gateway.links.suspects import Loss
from services.gateway.links.variant import Variant
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import ANYBODY
from services.gateway.relay.course import GenerationLimits
from services.gateway.relay.delivery import HELD_EVENTS_PER_CHOICE
from services.gateway.relay.generation import Generation
from services.gateway.relay.persistence import PersistenceLimits
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.turns import Turns
from services.gateway.relay.waiting_room import WaitingLimits, WaitingRoom
from services.mesh.errors import (
    DeadlineError,
    MeshError,
    NoWorkerError,
    PoisonRequestError,
    WorkerLostError,
)
from tests.fakes.fleet import model, worker
from tokenmesh.worker.v1 import worker_pb2


class Link:
    """A worker's stream that keeps what is sent."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.sent: list[worker_pb2.GenerateRequest] = []
        self.attempts: list[Attempt] = []
        self.starts: list[worker_pb2.Start] = []
        self.on_probation: list[bool] = []
        self.key = (worker_id, "")
        self.variants = {"m": Variant.of(model("m"))}

    def start(
        self, start: worker_pb2.Start, first_numbers: Sequence[int], *, on_probation: bool = False
    ) -> Attempt:
        self.on_probation.append(on_probation)
        self.starts.append(worker_pb2.Start.FromString(start.SerializeToString()))
        self.attempts.append(Attempt(self, Turns(), len(self.attempts), first_numbers))
        return self.attempts[-1]

    def send(self, frame: worker_pb2.GenerateRequest) -> None:
        self.sent.append(frame)

    def note_success(self, attempt: Attempt) -> None:
        pass

    def note_latency(self, first_token_s: float | None, inter_token_s: float | None) -> None:
        pass

    def note_ended(self, attempt: Attempt, error: MeshError | None) -> None:
        pass


class Workers:
    """Picks each link once, in order."""

    def __init__(self, *links: Link) -> None:
        self.links = links

    def resolve(self, name: str) -> Resolution:
        return Resolution(name, model(name), [worker()])

    def pick(self, resolution: Resolution, tried: Any = (), start: Any = None, **_: Any) -> Link:
        for link in self.links:
            if link.key not in tried:
                return link
        raise NoWorkerError("nobody is left")

    def can_go_on(self, resolution: Resolution, *, like: Variant | None) -> bool:
        return False

    async def wait_for_change(self, limit_s: float) -> None:
        await asyncio.sleep(0)


def generation(
    *links: Link,
    admission: Admission,
    time_left_s: float = 60.0,
    window_tokens: int = 4,
    whole: bool = False,
    wait_s: float = 0.0,
    quarantine: Quarantine | None = None,
) -> Generation:
    metrics = GatewayMetrics(CollectorRegistry())
    no_quarantine = Quarantine(600.0, time.monotonic, lambda: None)
    return Generation(
        worker_pb2.Start(model="m", text="Hi"),
        time_left_s=time_left_s,
        whole=whole,
        dispatch=cast("Dispatch", Workers(*links)),
        caller=ANYBODY,
        admission=admission,
        waiting_room=WaitingRoom(
            WaitingLimits(), free_places=lambda model: math.inf, metrics=metrics
        ),
        limits=GenerationLimits(window_tokens, PersistenceLimits(wait_s=wait_s)),
        quarantine=no_quarantine if quarantine is None else quarantine,
        metrics=metrics,
        random=Random(1),
    )


def chunk(number: int, text: str, *token_ids: int) -> worker_pb2.SequenceEvent:
    body = worker_pb2.Chunk(text=text, token_ids=token_ids)
    return worker_pb2.SequenceEvent(number=number, chunk=body)


STARTED = worker_pb2.SequenceEvent(started=worker_pb2.Started(prompt_tokens=3))


@pytest.fixture
def admission() -> Admission:
    return Admission(10)


async def test_nothing_is_retried_once_the_time_is_up(admission: Admission) -> None:
    """The worker is lost while the client does not read, and then the deadline passes."""
    first, second = Link("a"), Link("b")
    running = generation(first, second, admission=admission, time_left_s=0.01)
    async with running:
        first.attempts[0].lose(WorkerLostError("gone"))
        async with asyncio.timeout(10):
            while admission.running:
                await asyncio.sleep(0.005)
        with pytest.raises(DeadlineError):
            await anext(running)
    assert not second.attempts


async def test_a_waiting_reader_learns_that_it_was_abandoned(admission: Admission) -> None:
    link = Link("a")
    running = generation(link, admission=admission)
    async with running:
        reading = asyncio.ensure_future(anext(running))
        await asyncio.sleep(0)
        running.abandon()
        with pytest.raises(MeshError, match="left"):
            await reading
    assert [frame.WhichOneof("frame") for frame in link.sent] == ["abort"]
    assert admission.running == 0


async def test_what_came_before_the_deadline_is_delivered_first(admission: Admission) -> None:
    link = Link("a")
    running = generation(link, admission=admission, time_left_s=0.01)
    async with running:
        link.attempts[0].receive(STARTED)
        link.attempts[0].receive(chunk(1, "Hel", 1))
        async with asyncio.timeout(10):
            while admission.running:
                await asyncio.sleep(0.005)
        delivered = await anext(running)
        assert [event.chunk.text for event in delivered] == ["", "Hel"]
        with pytest.raises(DeadlineError):
            await anext(running)


async def test_progress_is_what_the_client_has_received(admission: Admission) -> None:
    link = Link("a")
    running = generation(link, admission=admission)
    async with running:
        for event in (STARTED, chunk(1, "né", 1, 2), chunk(2, "", 3), chunk(3, "o", 4)):
            link.attempts[0].receive(event)
        await anext(running)
        link.attempts[0].receive(chunk(4, "not yet", 5))
        (progress,) = running.progress
        assert progress.token_ids == [1, 2, 3, 4]
        assert progress.next_number == 4
        assert progress.delivered_bytes == len("néo".encode())


async def test_credit_comes_back_once_half_of_it_is_used(admission: Admission) -> None:
    link = Link("a")
    running = generation(link, admission=admission, window_tokens=4)
    async with running:
        link.attempts[0].receive(STARTED)
        granted = 4
        for number in range(1, 20):
            link.attempts[0].receive(chunk(number, "x", number))
            await anext(running)
            credits_ = [f.credit.tokens for f in link.sent if f.HasField("credit")]
            assert number < granted + sum(credits_) <= number + 4


@pytest.mark.parametrize(("waiting", "is_measurable"), [(3, True), (4, False)])
async def test_a_worker_is_not_blamed_for_a_client_that_reads_slowly(
    admission: Admission, waiting: int, is_measurable: bool
) -> None:
    """All credit is used up before the client takes anything: the worker had to wait."""
    link = Link("a")
    running = generation(link, admission=admission, window_tokens=4)
    async with running:
        link.attempts[0].receive(STARTED)
        for number in range(1, waiting + 1):
            link.attempts[0].receive(chunk(number, "x", number))
        await anext(running)
        assert link.attempts[0].is_measurable is is_measurable


async def test_a_time_that_is_up_already_starts_nothing(admission: Admission) -> None:
    link = Link("a")
    with pytest.raises(DeadlineError):
        async with generation(link, admission=admission, time_left_s=0.0):
            pass
    assert not link.attempts
    assert admission.running == 0


def finished(number: int) -> worker_pb2.SequenceEvent:
    return worker_pb2.SequenceEvent(number=number, finished=worker_pb2.Finished())


async def test_another_worker_goes_on_from_what_the_client_has(admission: Admission) -> None:
    first, second = Link("a"), Link("b")
    async with generation(first, second, admission=admission) as running:
        for event in (STARTED, chunk(1, "né", 1, 2), chunk(2, "", 3)):
            first.attempts[0].receive(event)
        await anext(running)
        first.attempts[0].lose(WorkerLostError("gone"))
        reading = asyncio.ensure_future(anext(running))
        async with asyncio.timeout(10):
            while not second.attempts:
                await asyncio.sleep(0)
        (so_far,) = second.starts[0].output_so_far
        assert (list(so_far.token_ids), so_far.next_number) == ([1, 2, 3], 3)
        assert so_far.delivered_bytes == len("né".encode())
        assert second.starts[0].sampling.seed == first.starts[0].sampling.seed
        second.attempts[0].receive(worker_pb2.SequenceEvent(number=3, started=STARTED.started))
        second.attempts[0].receive(chunk(4, "o", 4))
        assert [event.chunk.text for event in await reading] == ["o"]
        second.attempts[0].receive(finished(5))
        assert [event.WhichOneof("event") for event in await anext(running)] == ["finished"]
        with pytest.raises(StopAsyncIteration):
            await anext(running)


async def test_what_two_workers_die_of_is_stopped_and_stays_out(admission: Admission) -> None:
    links = [Link(name) for name in "abc"]
    quarantine = Quarantine(600.0, time.monotonic, lambda: None)
    async with generation(*links, admission=admission, quarantine=quarantine) as running:
        links[0].attempts[0].lose(WorkerLostError("gone"), Loss())
        reading = asyncio.ensure_future(anext(running))
        async with asyncio.timeout(10):
            while not links[1].attempts:
                await asyncio.sleep(0)
        assert (links[0].on_probation, links[1].on_probation) == ([False], [True])
        links[1].attempts[0].lose(WorkerLostError("gone"), Loss())
        with pytest.raises(PoisonRequestError):
            await reading
    with pytest.raises(PoisonRequestError):
        async with generation(links[2], admission=admission, quarantine=quarantine):
            pass
    assert not links[2].attempts
    assert admission.running == 0


async def test_a_token_between_two_deaths_clears_a_request(admission: Admission) -> None:
    links = [Link(name) for name in "ab"]
    async with generation(*links, admission=admission) as running:
        links[0].attempts[0].lose(WorkerLostError("gone"), Loss())
        reading = asyncio.ensure_future(anext(running))
        async with asyncio.timeout(10):
            while not links[1].attempts:
                await asyncio.sleep(0)
        links[1].attempts[0].receive(STARTED)
        links[1].attempts[0].receive(chunk(1, "a", 1))
        await reading
        links[1].attempts[0].lose(WorkerLostError("gone"), Loss())
        reading = asyncio.ensure_future(anext(running))
        async with asyncio.timeout(10):
            while len(links[0].attempts) < 2:
                await asyncio.sleep(0)
        reading.cancel()


async def test_a_whole_answer_goes_on_where_its_worker_is_lost(admission: Admission) -> None:
    first, second = Link("a"), Link("b")
    running = generation(first, second, admission=admission, whole=True)
    async with running:
        first.attempts[0].receive(STARTED)
        first.attempts[0].receive(chunk(1, "He", 1))
        reading = asyncio.ensure_future(anext(running))
        async with asyncio.timeout(10):
            while not running.progress[0].token_ids:
                await asyncio.sleep(0)
        first.attempts[0].lose(WorkerLostError("gone"))
        async with asyncio.timeout(10):
            while not second.attempts:
                await asyncio.sleep(0)
        repeated = worker_pb2.SequenceEvent(number=2, started=STARTED.started)
        for event in (repeated, chunk(3, "l", 2), chunk(4, "lo", 3), finished(5)):
            second.attempts[0].receive(event)
        events = await reading
        with pytest.raises(StopAsyncIteration):
            await anext(running)
    assert [event.WhichOneof("event") for event in events] == ["started", "chunk", "finished"]
    assert events[1].chunk.text == "Hello"
    assert running.progress[0].token_ids == [1, 2, 3]


async def test_a_long_whole_answer_is_joined_without_loss(admission: Admission) -> None:
    link = Link("a")
    tokens = 3 * HELD_EVENTS_PER_CHOICE
    running = generation(link, admission=admission, whole=True)
    async with running:
        reading = asyncio.ensure_future(anext(running))
        link.attempts[0].receive(STARTED)
        for number in range(1, tokens + 1):
            link.attempts[0].receive(chunk(number, "x", number))
            # Each is taken by itself.
            async with asyncio.timeout(10):
                while len(running.progress[0].token_ids) < number:
                    await asyncio.sleep(0)
        link.attempts[0].receive(finished(tokens + 1))
        events = await reading
    assert [event.WhichOneof("event") for event in events] == ["started", "chunk", "finished"]
    assert events[1].chunk.text == "x" * tokens
    assert list(events[1].chunk.token_ids) == list(range(1, tokens + 1))


async def test_a_token_goes_on_at_once(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link("w1")
    async with generation(link, admission=admission, window_tokens=64) as relay:
        loop = asyncio.get_running_loop()

        def no_timer(*_: Any, **__: Any) -> None:
            raise AssertionError("a token waits for time to pass")

        # What has to wait for time to pass needs one of them.
        monkeypatch.setattr(loop, "call_later", no_timer)
        monkeypatch.setattr(loop, "call_at", no_timer)
        for number in range(16):
            next_events = asyncio.ensure_future(anext(relay))
            await asyncio.sleep(0)
            link.attempts[0].receive(chunk(number, f"{number} ", number))
            for _ in range(3):
                await asyncio.sleep(0)
            assert next_events.done()
            assert [event.chunk.text for event in next_events.result()] == [f"{number} "]
        monkeypatch.undo()


async def test_what_waits_for_a_client_comes_joined_and_whole(admission: Admission) -> None:
    link = Link("w1")
    async with generation(link, admission=admission, window_tokens=64) as relay:
        for number in range(16):
            link.attempts[0].receive(chunk(number, f"{number} ", number))
        (event,) = await anext(relay)
        assert event.chunk.text == "".join(f"{number} " for number in range(16))
        assert list(event.chunk.token_ids) == list(range(16))
        assert event.number == 15
