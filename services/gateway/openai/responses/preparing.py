"""From what a client asks to what a worker is told to start: with its past, and cut to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.openai.failures import Context
from services.gateway.openai.responses import ids
from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.responses.events import EventPrinter
from services.gateway.openai.responses.history import PREVIOUS, own_items, past_items
from services.gateway.openai.responses.items import Item, PlacedItem
from services.gateway.openai.responses.making import ResponseInMaking
from services.gateway.openai.responses.owners import current_owner
from services.gateway.openai.responses.request import ResponseRequest, read_response_request
from services.gateway.openai.responses.spelling import ResponseSpelling
from services.gateway.openai.responses.store.base import ResponseStore
from services.gateway.openai.responses.truncation import drop_oldest
from services.gateway.relay.caller import Caller
from services.gateway.requests.validation import chat_start
from services.mesh.interceptors import current_request_id
from tokenmesh.openai.v1 import response_pb2
from tokenmesh.worker.v1 import worker_pb2


@dataclass(frozen=True)
class PreparedResponse:
    """A request that is ready to be generated."""

    asked: ResponseRequest
    input_items: list[Item]
    start: worker_pb2.Start
    caller: Caller
    owner: str

    def making(
        self, created_at_s: float, model: str, printer: EventPrinter | None
    ) -> ResponseInMaking:
        """The response, of which nothing is there yet."""
        return ResponseInMaking(
            ids.new_id(ids.RESPONSE),
            created_at_s,
            model,
            self.asked.told,
            background=self.asked.background,
            store=self.asked.store,
            shows_summary=self.asked.shows_summary,
            listener=printer,
        )


class Preparing:
    """Makes requests ready, with what the store has of their conversations."""

    def __init__(self, store: ResponseStore, tokenizing: Tokenizing) -> None:
        self._store = store
        self._tokenizing = tokenizing

    async def prepare(
        self,
        request: response_pb2.CreateResponseRequest,
        context: Context,
        spelling: ResponseSpelling,
    ) -> PreparedResponse:
        """The request, ready. `spelling` learns which items its messages are made of.

        Raises:
            InvalidRequestError: it is wrong, or continues what is not there.
            NotFoundError: it refers to an item that is not there.
            StoreError: it needs the store, which does not work.
            MeshError: it is to be cut to fit, and no worker can tell how long it is.
        """
        asked = read_response_request(request)
        owner = current_owner()
        if asked.insists_on_store:
            await self._store.check()
        past: list[Item] = []
        if asked.previous_response_id is not None:
            past = await past_items(self._store, asked.previous_response_id, owner)
        own = await own_items(self._store, asked, past, owner)
        items: Sequence[PlacedItem] = [
            *(PlacedItem(PREVIOUS, item, is_string=True) for item in past),
            *own,
        ]
        spelling.conversation = Conversation(asked.instructions, items)
        if asked.truncates:
            items = await self._cut(asked, items, time_left_s(context))
        spelling.conversation = Conversation(asked.instructions, items)
        start = chat_start(asked.chat_request(spelling.conversation), current_request_id())
        input_items = [placed.item for placed in own]
        caller = caller_of(context, asked.chat.user)
        return PreparedResponse(asked, input_items, start, caller, owner)

    async def _cut(
        self, asked: ResponseRequest, items: Sequence[PlacedItem], limit_s: float | None
    ) -> Sequence[PlacedItem]:
        answer_tokens = max(1, asked.chat.sampling.max_tokens)

        async def fits(kept: Sequence[PlacedItem]) -> bool:
            conversation = Conversation(asked.instructions, kept)
            start = chat_start(asked.chat_request(conversation), current_request_id())
            counted = await self._tokenizing.count(
                worker_pb2.CountTokensRequest(model=start.model, chat=start.chat), limit_s
            )
            return counted.prompt_tokens + answer_tokens <= counted.context_length_tokens

        return await drop_oldest(items, fits)
