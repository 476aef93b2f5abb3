"""One engine step as responses: one for each gateway that has a sequence in it."""

from __future__ import annotations

from collections import defaultdict

from services.mesh.errors import MeshError
from services.mesh.interceptors import as_mesh_error
from services.worker.engines.base import Chunk, Failed, Finished, SequenceEvent, Started
from services.worker.generate.generate_stream import METHOD, GenerateStream
from services.worker.generate.live_request import LiveRequest
from services.worker.metrics import ModelMetrics
from services.worker.translation.events import write_event
from tokenmesh.worker.v1 import worker_pb2


class StepResponses:
    """Gathers the events of a step, then sends them and takes note of what ended.

    What is done for each event is done for each token, so it is little.
    """

    def __init__(self, step: int) -> None:
        self.sequences = 0
        """Sequences that the step had output of."""
        self._step = step
        self._responses: dict[GenerateStream, worker_pb2.GenerateResponse] = {}
        self._tokens: defaultdict[ModelMetrics, int] = defaultdict(int)
        self._ended: list[tuple[LiveRequest, str]] = []
        self._untold: dict[LiveRequest, MeshError] = {}

    @property
    def are_behind(self) -> bool:
        """Whether no gateway that got something takes responses as fast as steps produce them."""
        return bool(self._responses) and all(each.is_behind for each in self._responses)

    def add(self, live: LiveRequest, each: SequenceEvent) -> None:
        """Adds an event of a request that runs: what it says, where its output is parsed."""
        if self._untold and live in self._untold:
            return
        if live.parsing is None:
            self._tell(live, each)
            return
        try:
            read = live.parsing.read(each)
        except Exception as error:
            self._untold[live] = as_mesh_error(error, METHOD)
            return
        for told in read:
            if live not in self._untold:
                self._tell(live, told)

    def _tell(self, live: LiveRequest, each: SequenceEvent) -> None:
        response = self._responses.get(live.stream)
        if response is None:
            response = worker_pb2.GenerateResponse(step=self._step)
            self._responses[live.stream] = response
        target = response.events.add()
        try:
            target.request_key = live.request_key
            target.choice_index = each.choice_index
            target.number = each.number
            write_event(each.event, target)
        except Exception as error:
            # An event that cannot be told must not take other requests with it.
            del response.events[-1]
            self._untold[live] = as_mesh_error(error, METHOD)
            return
        if isinstance(each.event, Chunk):
            live.next_numbers[each.choice_index] = each.number + 1
            tokens = len(each.event.token_ids)
            self._tokens[live.metrics] += tokens
            self.sequences += 1
            if live.count_tokens(each.choice_index, tokens):
                live.stream.top_up(live)
        else:
            self._note(live, each)

    def send(self) -> None:
        """Queues the responses, lets go what ended, and counts."""
        for stream, response in self._responses.items():
            stream.step = self._step
            stream.send(response)
        for live, code in self._ended:
            live.stream.end(live, code)
        for live, failure in self._untold.items():
            if not live.is_over:
                live.stream.fail(live, failure)
        for metrics, tokens in self._tokens.items():
            metrics.completion_tokens.inc(tokens)

    def _note(self, live: LiveRequest, each: SequenceEvent) -> None:
        """Takes note of a start or an end."""
        event = each.event
        if isinstance(event, Started):
            live.next_numbers[each.choice_index] = each.number + 1
            if each.choice_index == 0:
                live.metrics.started(event)
            return
        code = "OK"
        if isinstance(event, Finished):
            live.metrics.finished(event)
            live.finish_reason = event.reason.value
        elif isinstance(event, Failed):
            code = event.error.code
        if live.end_choice(each.choice_index):
            self._ended.append((live, code))
