"""Outputs held to forms, where the engine itself is pressed: memory, cache, threads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from services.worker.engines.forms import Json, Regex
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from tests.contract.engine_client import running
from tests.models import checkpoint

ROWS = Json(
    json.dumps(
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            "minItems": 40,
            "maxItems": 60,
        }
    )
)
BLOCK_BYTES = 16 * 1024
"""Of the test model, with 32 tokens."""


def engine(**fields: Any) -> TransformersEngine:
    return TransformersEngine(
        EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1, **fields)
    )


async def test_preemption_changes_nothing() -> None:
    fields: list[dict[str, Any]] = [
        {"constraint": ROWS, "seed": seed, "max_tokens": 140} for seed in range(4)
    ]
    async with running(engine()) as client:
        alone = [await client.run(**each) for each in fields]
    async with running(
        engine(kv_memory_bytes=14 * BLOCK_BYTES, context_length_tokens=192)
    ) as client:
        keys = [await client.submit(**each) for each in fields]
        together = [await client.end_of(key) for key in keys]
        assert client.engine.counters().preemptions
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert [each.text for each in together] == [each.text for each in alone]


async def test_equal_forms_are_compiled_once() -> None:
    async with running(engine()) as client:
        submitted = (client.submit(constraint=ROWS, max_tokens=2, seed=seed) for seed in range(3))
        for key in await asyncio.gather(*submitted):
            await client.end_of(key)
        await client.run(constraint=Regex("[ab]{9}"), max_tokens=2)
        await client.until_idle()
        counters = client.engine.counters()
    assert counters.forms_compiled == 2
    assert counters.form_cache_hits is not None
    # Whether it waits for another's compiling, or comes when that is done.
    assert 4 <= counters.form_cache_hits <= 6
    assert counters.masks == 8
    assert counters.form_compile_s
    assert counters.mask_s


async def test_a_form_that_becomes_too_complex_fails_alone() -> None:
    # Every subset of the last letters is a state of its own.
    hostile = Regex("(a|b)*a(a|b){400}c")
    async with running(engine()) as client:
        held = await client.submit(constraint=hostile, max_tokens=400, seed=1)
        free = await client.run(max_tokens=20, ignore_eos=True)
        assert free.finished.completion_tokens == 20
        output = await client.end_of(held)
        assert output.is_over
