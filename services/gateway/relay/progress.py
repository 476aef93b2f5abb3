"""How far a choice has come at the client: what another worker needs to go on from there."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenmesh.worker.v1 import worker_pb2


@dataclass(slots=True)
class ChoiceProgress:
    """What the client of one choice has received, in the terms of worker.v1.OutputSoFar."""

    token_ids: list[int] = field(default_factory=list)
    next_number: int = 0
    delivered_bytes: int = 0
    """Of what the model wrote: where a worker parses that, more than the client sees of it."""
    reasoning_tokens: int = 0
    tool_calls: int = 0
    """Those that have begun."""
    is_started: bool = False
    is_finished: bool = False
    tokens_elsewhere: int = 0
    """Of `token_ids`, those that workers before the present one produced."""

    @property
    def tokens_here(self) -> int:
        """Tokens that came from the present worker."""
        return len(self.token_ids) - self.tokens_elsewhere

    def deliver(self, event: worker_pb2.SequenceEvent) -> None:
        """Notes a chunk that the client gets."""
        chunk = event.chunk
        self.token_ids.extend(chunk.token_ids)
        if chunk.HasField("output_bytes"):
            self.delivered_bytes += chunk.output_bytes
            self.reasoning_tokens += chunk.reasoning_tokens
            # Nearly no token begins a call, so nothing is set up to count them.
            for call in chunk.tool_calls:
                self.tool_calls += call.HasField("id")
        else:
            text = chunk.text
            self.delivered_bytes += len(text) if text.isascii() else len(text.encode())
        self.next_number = event.number + 1

    def move(self) -> None:
        """Another worker goes on from here."""
        self.tokens_elsewhere = len(self.token_ids)

    def write(self, target: worker_pb2.OutputSoFar) -> None:
        """Writes what another worker needs, except which choice it is of."""
        target.token_ids.extend(self.token_ids)
        target.next_number = self.next_number
        target.delivered_bytes = self.delivered_bytes
        target.reasoning_tokens = self.reasoning_tokens
