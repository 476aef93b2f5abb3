"""What every chunk and body of one answer begins with."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from functools import cache

from services.gateway.discovery.directory import Directory
from services.gateway.discovery.fleet import Model
from services.gateway.openai.json_text import quoted
from services.gateway.relay.relay import Generation
from services.mesh.release import RELEASE
from tokenmesh.mesh.v1 import generation_pb2

_FINISH_REASONS = {
    generation_pb2.FINISH_REASON_STOP: "stop",
    generation_pb2.FINISH_REASON_LENGTH: "length",
    generation_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    generation_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    # An abort is the client's own wish to stop, and nobody is there to read this.
    generation_pb2.FINISH_REASON_ABORTED: "stop",
}


@dataclass(frozen=True)
class Envelope:
    """Identifies an answer."""

    answer_id: str
    created_s: int
    """Seconds since the epoch."""
    model: str
    """The model that answers, by its own name."""
    fingerprint: str
    service_tier: str | None = None
    """Told where the client asked for one."""

    def opening(self, kind: str) -> str:
        """The JSON up to, and with, the name of the choices. `kind` is the object's type."""
        tier = f'"service_tier":{quoted(self.service_tier)},' if self.service_tier else ""
        return (
            f'{{"id":{quoted(self.answer_id)},"object":{quoted(kind)},"created":{self.created_s},'
            f'"model":{quoted(self.model)},{tier}"system_fingerprint":{quoted(self.fingerprint)},'
            '"choices":'
        )


def new_envelope(
    prefix: str, created_at_s: float, name: str, model: Model, service_tier: str | None = None
) -> Envelope:
    """An envelope with a new id, such as "chatcmpl-…". `name` is the model's, or its adapter's."""
    return Envelope(
        answer_id=f"{prefix}-{uuid.uuid4().hex}",
        created_s=int(created_at_s),
        model=name,
        fingerprint=fingerprint(name, model.revision, model.quantization, model.dtype),
        service_tier=service_tier,
    )


def envelope_of(
    prefix: str,
    generation: Generation,
    directory: Directory,
    service_tier: str | None = None,
) -> Envelope:
    """Of an answer whose generation was just entered, so that the directory knows its model."""
    model = directory.resolve(generation.model).model
    return new_envelope(prefix, generation.created_at_s, generation.model, model, service_tier)


@cache
def fingerprint(*what_answers: str) -> str:
    """Tells clients that compare seeded answers that the software or the weights have changed."""
    text = "\0".join((RELEASE, *what_answers))
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def finish_reason(reason: generation_pb2.FinishReason.ValueType) -> str:
    """OpenAI's word for why a choice ended."""
    return _FINISH_REASONS[reason]
