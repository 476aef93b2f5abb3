"""Requests that the contract's tests make of an engine."""

from __future__ import annotations

from typing import Any

from tests.contract.engine_client import EngineClient, Output

LONG: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}
"""A request that goes on until it is ended."""
HELD: dict[str, Any] = {"own": {"credit_tokens": 1}, **LONG}
"""A request that holds its place and rests."""


async def fill(client: EngineClient, requests: int, **changes: Any) -> list[Any]:
    """Submits requests that rest once they run."""
    return [await client.submit(**HELD | changes) for _ in range(requests)]


async def text_of(client: EngineClient, output: Output) -> str:
    engine = client.engine
    return await engine.detokenize(client.model, output.token_ids, skip_special_tokens=True)
