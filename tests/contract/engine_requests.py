"""Requests that the contract's tests make of an engine."""

from __future__ import annotations

from typing import Any

import pytest

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


def unsupported(client: EngineClient) -> frozenset[str]:
    """The sampling fields that the engine refuses, because it cannot do what they ask."""
    if client.engine.name == "scripted":
        return frozenset({"bad_words", "best_of", "constraint", "prompt_top_logprobs"})
    is_serial = client.engine.models[0].execution == "serial"
    return frozenset({"constraint", "prompt_top_logprobs"} if is_serial else {"constraint"})


def skip_unless(client: EngineClient, field: str) -> None:
    """Skips a test of what the engine refuses; the tests of refusals hold it to that."""
    if field in unsupported(client):
        pytest.skip(f"{client.engine.name} refuses {field}")
