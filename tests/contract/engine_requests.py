"""Requests that the contract's tests make of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.errors import UnsupportedError
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
    return frozenset({"prompt_top_logprobs"} if is_serial else ())


_ASKING: dict[str, Any] = {"bad_words": ("word",), "best_of": 2, "prompt_top_logprobs": 1}


async def refuses(client: EngineClient, field: str) -> bool:
    """Whether the engine cannot do what a field asks; then it must say so, by the field's name."""
    if field not in unsupported(client):
        return False
    with pytest.raises(UnsupportedError) as refused:
        await client.submit(**{field: _ASKING[field]})
    assert refused.value.field == f"sampling.{field}"
    return True
