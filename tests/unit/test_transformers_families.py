"""Each family of models gives the tokens that transformers' own generate gives, in float32."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine, assembly
from services.worker.engines.transformers.checkpoint.memory import BLOCK_TOKENS
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from tests.contract.engine_client import EngineClient, running
from tests.families import PAGED, SERIAL
from tests.generation import generate
from tests.models import checkpoint

FAMILIES = [*PAGED, *SERIAL]
NEW_TOKENS = 40
PROMPTS = (
    "The quick brown fox",
    "a",
    "Grüße aus München! 東京から 🙂",
    "Numbers: 0 1 2 3 4 5 6 7 8 9, " * 6,
    "dog. " * 30,
    "Les élèves étudient",
)
LONG = 3
GREEDY: dict[str, Any] = {
    "temperature": 0.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
    "max_tokens": NEW_TOKENS,
}


def engine(folder: Path, **settings: Any) -> TransformersEngine:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1} | settings
    return TransformersEngine(EngineSettings(str(folder), **given))


def expected(folder: Path) -> list[list[int]]:
    """What each prompt gives. Fails where a model says the same for ever: that proves little."""
    outputs = [generate(folder, prompt, NEW_TOKENS) for prompt in PROMPTS]
    assert sum(len(set(output)) > 10 for output in outputs) >= 4, outputs
    return outputs


@pytest.mark.parametrize("family", FAMILIES)
async def test_tokens_are_those_of_generate_alone_and_in_mixed_batches(family: str) -> None:
    folder = checkpoint(family)
    # Few places and tokens a step: prompts come in pieces, beside others' decoding, and wait.
    async with running(engine(folder, max_running=4, step_tokens=23)) as client:
        assert client.engine.models[0].execution == ("paged" if family in PAGED else "serial")
        keys = []
        for number, prompt in enumerate(PROMPTS):
            keys.append(await client.submit(prompt, **GREEDY))
            if number % 2:
                await client.until(_has_gone_on(client, keys[-1], len(client.steps) + 3))
        together = [(await client.end_of(key)).token_ids for key in keys]
        alone = [(await client.run(prompt, **GREEDY)).token_ids for prompt in PROMPTS[2:4]]
    outputs = expected(folder)
    assert together == outputs
    assert alone == outputs[2:4]


@pytest.mark.parametrize("family", PAGED)
async def test_tokens_over_a_cached_prefix_are_those_of_generate(family: str) -> None:
    folder = checkpoint(family)
    longer = PROMPTS[LONG] + "and more"
    async with running(engine(folder)) as client:
        first = await client.run(PROMPTS[LONG], **GREEDY)
        again = await client.run(PROMPTS[LONG], **GREEDY)
        other = await client.run(longer, **GREEDY)
    assert first.finished.cached_tokens == 0
    assert again.finished.cached_tokens >= BLOCK_TOKENS
    assert other.finished.cached_tokens >= BLOCK_TOKENS
    assert again.token_ids == first.token_ids == generate(folder, PROMPTS[LONG], NEW_TOKENS)
    assert other.token_ids == generate(folder, longer, NEW_TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
async def test_tokens_after_preemption_are_those_of_generate(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(family)
    # Two of the long prompt fit when they begin, and only one to its end.
    monkeypatch.setattr(assembly, "BlockPool", lambda _, tokens: BlockPool(7, tokens))
    one = engine(folder, max_running=4, context_length_tokens=7 * BLOCK_TOKENS)
    async with running(one) as client:
        twice = await client.submit(PROMPTS[LONG], choices=2, **GREEDY)
        keys = [await client.submit(prompt, **GREEDY) for prompt in PROMPTS]
        together = [(await client.end_of(key)).token_ids for key in keys]
        long = [(await client.end_of(twice, choice)).token_ids for choice in range(2)]
    outputs = expected(folder)
    assert together == outputs
    assert long == [outputs[LONG]] * 2
    assert one._assembly is not None
    assert one._assembly.step_loop._scheduler.counts.preemptions > 0


def _has_gone_on(client: EngineClient, key: Hashable, steps: int) -> Callable[[], bool]:
    return lambda: len(client.steps) > steps or client.output(key).is_over
