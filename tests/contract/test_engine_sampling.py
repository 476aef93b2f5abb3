"""How an engine chooses tokens. Holds for every engine."""

from __future__ import annotations

import asyncio
from typing import Any

from services.worker.engines.base import (
    Chunk,
    FinishReason,
)
from tests.contract.conftest import MAX_RUNNING
from tests.contract.engine_client import EngineClient, Output
from tests.contract.engine_requests import text_of
from tests.models import CONTEXT_TOKENS


class TestSampling:
    async def test_equal_seeds_give_equal_outputs_alone_and_beside_others(
        self, client: EngineClient
    ) -> None:
        fields = {"max_tokens": 20, "temperature": 1.0, "ignore_eos": True}
        alone = await client.run(seed=7, **fields)
        beside = await asyncio.gather(*(client.run(seed=seed, **fields) for seed in (8, 7, 9)))
        assert beside[1].token_ids == alone.token_ids
        assert beside[0].token_ids != alone.token_ids

    async def test_choices_are_independent_sequences(self, client: EngineClient) -> None:
        fields: dict[str, Any] = {"max_tokens": 12, "seed": 3, "ignore_eos": True}
        choices = await client.run_choices(MAX_RUNNING + 2, temperature=1.0, **fields)
        assert len({tuple(choice.token_ids) for choice in choices}) > 1
        for choice in choices:
            assert choice.numbers == list(range(len(choice.events)))
            assert choice.finished.completion_tokens == 12
        again = await client.run(temperature=1.0, **fields)
        assert again.token_ids == choices[0].token_ids

    async def test_a_stop_string_ends_the_output_and_is_not_in_it(
        self, client: EngineClient
    ) -> None:
        fields = {"max_tokens": 60, "seed": 3, "ignore_eos": True, "temperature": 0.8}
        whole = (await client.run(**fields)).text
        # Across the border between two tokens' texts, in the middle of the output.
        stop = whole[len(whole) // 2 : len(whole) // 2 + 5]
        end = whole.index(stop)
        cut = await client.run(stop=(stop, "never comes"), **fields)
        assert cut.text == whole[:end]
        assert cut.finished.reason is FinishReason.STOP
        assert cut.finished.stop_string == stop
        assert cut.finished.stop_token_id is None
        kept = await client.run(stop=(stop,), include_stop_string=True, **fields)
        assert kept.text == whole[: end + len(stop)]

    async def test_a_stop_token_ends_the_output_and_is_not_in_its_text(
        self, client: EngineClient
    ) -> None:
        fields = {"max_tokens": 40, "seed": 3, "ignore_eos": True, "temperature": 0.8}
        whole = await client.run(**fields)
        stop_id = whole.token_ids[20]
        at = whole.token_ids.index(stop_id)
        cut = await client.run(stop_token_ids=(stop_id,), **fields)
        assert cut.token_ids == whole.token_ids[: at + 1]
        assert cut.finished.stop_token_id == stop_id
        assert cut.finished.reason is FinishReason.STOP
        before = Output(events=[Chunk("", tuple(whole.token_ids[:at]))])
        assert cut.text == await text_of(client, before)

    async def test_nothing_ends_before_min_tokens(self, client: EngineClient) -> None:
        fields = {"max_tokens": 40, "seed": 3, "temperature": 0.8}
        whole = await client.run(ignore_eos=True, **fields)
        output = await client.run(
            min_tokens=30, stop_token_ids=tuple(whole.token_ids[:10]), **fields
        )
        assert output.finished.completion_tokens >= 30

    async def test_the_context_limits_an_output_without_max_tokens(
        self, client: EngineClient
    ) -> None:
        ids = await client.engine.tokenize(client.model, "hello " * 10, add_special_tokens=True)
        prompt = (tuple(ids) * CONTEXT_TOKENS)[: CONTEXT_TOKENS - 5]
        output = await client.run(prompt, ignore_eos=True)
        assert output.finished.reason is FinishReason.LENGTH
        assert output.finished.completion_tokens <= 5
