"""Puts what is left of a key's limits into a call's response headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc

from services.gateway.keys.account import Account

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str | bytes]]


class LimitHeaders:
    """A call's context that adds the headers to whatever goes out first. Else it is the context."""

    def __init__(self, context: Context, account: Account) -> None:
        self._context = context
        self._account = account
        self.are_sent = False
        """Whether any header is out."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends headers, and the limits with them."""
        self.are_sent = True
        await self._context.send_initial_metadata((*metadata, *self._account.headers()))

    async def send(self) -> None:
        """Sends the limits, where none went with other headers. Before the first message."""
        self.are_sent = True
        headers = self._account.headers()
        if headers:
            await self._context.send_initial_metadata(headers)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call with an error; its limits go along where no header is out yet."""
        limits = () if self.are_sent else self._account.headers()
        await self._context.abort(code, details, (*trailing_metadata, *limits))
        raise AssertionError("context.abort raises")
