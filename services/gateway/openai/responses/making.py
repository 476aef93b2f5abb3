"""A response while it is being made, and once it has been."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.json_fields import with_integers
from services.gateway.openai.json_text import encoded, quoted
from services.gateway.openai.responses.events import CANCELLED
from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.output import NobodyListens, Output, OutputListener
from services.gateway.openai.responses.output_items import COMPLETED, IN_PROGRESS, INCOMPLETE
from services.mesh.errors import MeshError
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

QUEUED = "queued"
FAILED = "failed"

_INCOMPLETE_REASONS = {
    generation_pb2.FINISH_REASON_LENGTH: "max_output_tokens",
    generation_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
_ERROR_CODES = {"RESOURCE_EXHAUSTED": "rate_limit_exceeded", "INVALID_ARGUMENT": "invalid_prompt"}
_OTHER_ERROR_CODE = "server_error"


class ResponseInMaking:
    """Follows the events of a generation, and prints the response as it stands.

    Args:
        response_id: of the response.
        created_at_s: seconds since the epoch.
        model: the model that answers, by its own name.
        told: the fields of the request that are told again.
    """

    def __init__(
        self,
        response_id: str,
        created_at_s: float,
        model: str,
        told: Item,
        *,
        background: bool,
        store: bool,
        shows_summary: bool,
        listener: OutputListener | None = None,
    ) -> None:
        self.response_id = response_id
        self.created_at_s = int(created_at_s)
        self.model = model
        self.store = store
        self.status = QUEUED if background else IN_PROGRESS
        self.output = Output(listener or NobodyListens(), shows_summary=shows_summary)
        self._background = background
        self._told = encoded(with_integers(told))
        self._error = "null"
        self._incomplete = "null"
        self._usage = "null"
        self._completed_at = "null"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.status in (QUEUED, IN_PROGRESS)

    def take(self, events: Sequence[worker_pb2.SequenceEvent], now_s: float) -> None:
        """Takes what came, at a time in seconds since the epoch."""
        for each in events:
            kind = each.WhichOneof("event")
            if kind == "chunk":
                self.output.take(each.chunk)
            elif kind == "finished":
                self._finish(each.finished, now_s)

    def fail(self, error: MeshError, words: str) -> None:
        """It ends with an error, which `words` tell to the client."""
        self.output.end(INCOMPLETE)
        self.status = FAILED
        code = _ERROR_CODES.get(error.code, _OTHER_ERROR_CODE)
        self._error = f'{{"code":"{code}","message":{quoted(words)}}}'

    def cancel(self) -> None:
        """Its client ends it."""
        self.output.end(INCOMPLETE)
        self.status = CANCELLED

    def item_ids(self) -> list[str]:
        """The ids of the items of its output."""
        return [item.item_id for item in self.output.items]

    def json(self) -> str:
        """The response as a JSON object."""
        return (
            f'{{"id":"{self.response_id}","object":"response","created_at":{self.created_at_s},'
            f'"status":"{self.status}","background":{encoded(self._background)},'
            f'"completed_at":{self._completed_at},"error":{self._error},'
            f'"incomplete_details":{self._incomplete},"model":{quoted(self.model)},'
            f'"output":{self.output.json()},"usage":{self._usage},"store":{encoded(self.store)},'
            f"{self._told[1:]}"
        )

    def _finish(self, finished: worker_pb2.Finished, now_s: float) -> None:
        reason = _INCOMPLETE_REASONS.get(finished.reason)
        if reason is None:
            self.status = COMPLETED
            self._completed_at = str(int(now_s))
        else:
            self.status = INCOMPLETE
            self._incomplete = f'{{"reason":"{reason}"}}'
        self.output.end(self.status)
        self._usage = _usage(finished.usage)


def _usage(usage: generation_pb2.Usage) -> str:
    """OpenAI's usage object. Writing to a cache costs nothing here, so that none is told of."""
    return (
        f'{{"input_tokens":{usage.prompt_tokens},"input_tokens_details":'
        f'{{"cached_tokens":{usage.cached_tokens},"cache_write_tokens":0}},'
        f'"output_tokens":{usage.completion_tokens},"output_tokens_details":'
        f'{{"reasoning_tokens":{usage.reasoning_tokens}}},'
        f'"total_tokens":{usage.prompt_tokens + usage.completion_tokens}}}'
    )
