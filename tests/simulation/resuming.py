"""One request on worker after worker: the real delivery, the real engine, a network that loses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.delivery import Delivery
from services.gateway.relay.request_record import RequestRecord
from services.worker import engines
from services.worker.engines.base import Finished, SequenceEvent
from services.worker.engines.scripted import ScriptedSettings, vocabulary
from services.worker.translation.events import write_event
from services.worker.translation.requests import engine_request
from tokenmesh.worker.v1 import worker_pb2

SETTINGS = ScriptedSettings(context_length_tokens=4096)
METRICS = GatewayMetrics(CollectorRegistry())


@dataclass
class Received:
    """What the client has of one choice."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[int] = field(default_factory=list)
    starts: int = 0
    prompt_tokens: int = 0
    ends: list[tuple[Any, ...]] = field(default_factory=list)


class Workers:
    """Workers of one model, which compute the same: one engine is as good as any number of them."""

    def __init__(self) -> None:
        self._engine = engines.create("scripted", SETTINGS)
        self._steps = self._engine.steps()
        self._key = 0
        self._unfinished = 0

    async def begin(self, start: worker_pb2.Start) -> None:
        """Another worker takes the request; the one before is dead."""
        self._engine.abort(self._key)
        self._key += 1
        self._unfinished = max(1, start.sampling.choices)
        sent = worker_pb2.Start.FromString(start.SerializeToString())
        await self._engine.submit(
            engine_request(sent, self._key, now_s=0.0, credit_tokens=0, may_bring_template=False)
        )

    async def step(self) -> list[worker_pb2.SequenceEvent]:
        """What one step produces."""
        if not self._unfinished:
            return []
        events = (await anext(self._steps)).events
        self._unfinished -= sum(isinstance(each.event, Finished) for each in events)
        return [_message(each) for each in events if each.key == self._key]


def _message(event: SequenceEvent) -> worker_pb2.SequenceEvent:
    message = worker_pb2.SequenceEvent(
        request_key=1, choice_index=event.choice_index, number=event.number
    )
    write_event(event.event, message)
    # Once over the wire: nothing is shared with the worker any more.
    return worker_pb2.SequenceEvent.FromString(message.SerializeToString())


async def answer(
    workers: Workers, start: worker_pb2.Start, random: Random, *, death: float, whole: bool
) -> list[Received]:
    """What the client gets while, at each step, the worker dies with a probability of `death`.

    What a dead worker had sent and the gateway had not taken is lost. Events that the gateway had
    taken are with the client, whole answers excepted.
    """
    choices = max(1, start.sampling.choices)
    delivery = Delivery(choices, RequestRecord(METRICS, "chat"), whole=whole)
    client = [Received() for _ in range(choices)]
    due = [0] * choices
    await workers.begin(start)
    under_way: deque[worker_pb2.SequenceEvent] = deque()
    while delivery.unfinished:
        under_way += await workers.step()
        if random.random() < death:
            under_way.clear()
            due = delivery.move(start)
            await workers.begin(start)
        elif random.random() < 0.5:
            taken = [under_way.popleft() for _ in range(random.randint(0, len(under_way)))]
            for event in taken:
                assert event.number == due[event.choice_index], "an event is missing, or came twice"
                due[event.choice_index] += 1
            _receive(client, delivery.take(taken)[0])
    return client


def _receive(client: list[Received], events: Any) -> None:
    for event in events:
        choice = client[event.choice_index]
        assert not choice.ends, "something came after the end"
        match event.WhichOneof("event"):
            case "started":
                choice.starts += 1
                choice.prompt_tokens = event.started.prompt_tokens
            case "chunk":
                choice.text += event.chunk.text
                choice.token_ids += event.chunk.token_ids
                choice.logprobs += [each.token_id for each in event.chunk.logprobs]
            case "finished":
                finished = event.finished
                usage = finished.usage
                stopped_by = finished.WhichOneof("stopped_by")
                choice.ends.append(
                    (
                        finished.reason,
                        usage.prompt_tokens,
                        usage.completion_tokens,
                        stopped_by and getattr(finished, stopped_by),
                    )
                )


def draw_start(random: Random) -> worker_pb2.Start:
    """A request with whatever a stream must carry over."""
    start = worker_pb2.Start(model="scripted", text=f"prompt {random.random()}")
    sampling = start.sampling
    sampling.seed = random.randrange(2**53)
    sampling.max_tokens = random.randint(1, 60)
    sampling.ignore_eos = random.random() < 0.7
    if random.random() < 0.3:
        sampling.choices = random.randint(2, 4)
    if random.random() < 0.3:
        sampling.min_tokens = random.randint(0, sampling.max_tokens)
    if random.random() < 0.3:
        sampling.top_logprobs = random.randint(0, 3)
    if random.random() < 0.3:
        sampling.include_stop_string = True
    if random.random() < 0.4:
        start.echo = True
    for _ in range(random.choice((0, 0, 1, 3))):
        # Short, so that they are found, and straddle tokens.
        word, other = random.choice(vocabulary.WORDS), random.choice(vocabulary.WORDS)
        sampling.stop.append(random.choice((word[-2:] + " " + other[:1], "é", word[:2], "🙂 ")))
    return start
