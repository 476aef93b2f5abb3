"""How an engine chooses tokens. Holds for every engine."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import (
    Chunk,
    FinishReason,
    Started,
)
from tests.contract.conftest import MAX_RUNNING
from tests.contract.engine_client import EngineClient, Output
from tests.contract.engine_requests import refuses, text_of
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

    async def test_a_stream_interval_gathers_tokens(self, client: EngineClient) -> None:
        fields: dict[str, Any] = {"max_tokens": 10, "seed": 3, "ignore_eos": True}
        single = await client.run(**fields)
        gathered = await client.run(stream_interval_tokens=4, **fields)
        assert [len(chunk.token_ids) for chunk in gathered.chunks] == [4, 4, 2]
        assert (gathered.text, gathered.token_ids) == (single.text, single.token_ids)

    @pytest.mark.parametrize("top", [0, 3, 20])
    async def test_each_token_has_its_log_probability(self, client: EngineClient, top: int) -> None:
        output = await client.run(max_tokens=6, temperature=0.0, ignore_eos=True, top_logprobs=top)
        told = [each for chunk in output.chunks for each in chunk.logprobs]
        assert [each.token_id for each in told] == output.token_ids
        for each in told:
            assert each.logprob <= 1e-6
            assert len(each.top) == top
            values = [other.logprob for other in each.top]
            assert values == sorted(values, reverse=True)
            assert not top or each.top[0].token_id == each.token_id

    async def test_bad_words_do_not_come(self, client: EngineClient) -> None:
        if await refuses(client, "bad_words"):
            return
        fields: dict[str, Any] = {"max_tokens": 40, "temperature": 0.0, "ignore_eos": True}
        whole = await client.run(**fields)
        word, token_id = "", -1
        plain = [each for each in whole.chunks if each.text.strip() == each.text != ""]
        for chunk in plain:
            ids = await client.engine.tokenize(client.model, chunk.text, add_special_tokens=False)
            if tuple(ids) == chunk.token_ids:
                word, token_id = chunk.text, ids[0]
        assert token_id in whole.token_ids
        without = await client.run(bad_words=(word,), **fields)
        assert token_id not in without.token_ids
        assert without.finished.completion_tokens == 40


class TestBestOf:
    FIELDS: dict[str, Any] = {  # noqa: RUF012
        "max_tokens": 8,
        "seed": 5,
        "temperature": 1.3,
        "ignore_eos": True,
        "top_logprobs": 0,
    }

    @staticmethod
    def _mean(output: Output) -> float:
        told = [each.logprob for chunk in output.chunks for each in chunk.logprobs]
        return sum(told) / len(told)

    async def test_the_likeliest_are_returned_and_all_are_counted(
        self, client: EngineClient
    ) -> None:
        if await refuses(client, "best_of"):
            return
        every = await client.run_choices(6, **self.FIELDS)
        ranked = sorted(every, key=self._mean, reverse=True)
        key = await client.submit(choices=2, best_of=6, **self.FIELDS)
        best = [await client.end_of(key, index) for index in range(2)]
        assert [each.token_ids for each in best] == [each.token_ids for each in ranked[:2]]
        assert [each.text for each in best] == [each.text for each in ranked[:2]]
        assert [each.finished.completion_tokens for each in best] == [5 * 8, 8]
        assert best[0].numbers == list(range(len(best[0].events)))
        # Nothing came before the end, which comes at once.
        assert len({*best[0].steps, *best[1].steps}) == 1
        await client.until_idle()

    async def test_nothing_waits_for_credit(self, client: EngineClient) -> None:
        if await refuses(client, "best_of"):
            return
        own = {"credit_tokens": 1}
        output = await client.run(best_of=2, own=own, **self.FIELDS)
        assert len(output.token_ids) == 8
        assert output.finished.completion_tokens == 16

    async def test_an_abort_ends_them_all(self, client: EngineClient) -> None:
        if await refuses(client, "best_of"):
            return
        key = await client.submit(best_of=3, max_tokens=400, ignore_eos=True)
        client.engine.abort(key)
        await client.until_idle()
        assert not client.output(key).events
        await client.run(max_tokens=2)


class TestPromptLogprobs:
    async def test_each_token_of_the_prompt_has_one_but_the_first(
        self, client: EngineClient
    ) -> None:
        if await refuses(client, "prompt_top_logprobs"):
            return
        prompt = "hello world, " * 20
        fields: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 5}
        ids = await client.engine.tokenize(client.model, prompt, add_special_tokens=True)
        plain = await client.run(prompt, **fields)
        output = await client.run(prompt, prompt_top_logprobs=2, **fields)
        assert output.token_ids == plain.token_ids
        started = output.events[0]
        assert isinstance(started, Started)
        assert started.cached_tokens == 0
        first, *others = started.prompt_logprobs
        assert [each.token_id for each in started.prompt_logprobs] == ids
        assert math.isnan(first.logprob)
        assert first.top == ()
        assert all(each.logprob <= 0 and len(each.top) == 2 for each in others)
        # What the model says of a text is the same whether it reads or writes it.
        written = await client.run(prompt, top_logprobs=2, **fields)
        longer = await client.run((*ids, *written.token_ids), prompt_top_logprobs=2, max_tokens=1)
        read = longer.events[0]
        assert isinstance(read, Started)
        told = [each for chunk in written.chunks for each in chunk.logprobs]
        for one, other in zip(read.prompt_logprobs[len(ids) :], told, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [each.token_id for each in one.top] == [each.token_id for each in other.top]

    async def test_all_choices_have_them(self, client: EngineClient) -> None:
        if await refuses(client, "prompt_top_logprobs"):
            return
        outputs = await client.run_choices(
            MAX_RUNNING + 1, "hello " * 40, prompt_top_logprobs=0, max_tokens=2, seed=1
        )
        told = [each.events[0] for each in outputs]
        assert all(isinstance(each, Started) for each in told)
        assert len({repr(each.prompt_logprobs) for each in told if isinstance(each, Started)}) == 1

    async def test_with_echo_the_prompt_comes_first(self, client: EngineClient) -> None:
        if await refuses(client, "prompt_top_logprobs"):
            return
        output = await client.run(
            "hello world", own={"echo": True}, prompt_top_logprobs=1, top_logprobs=1, max_tokens=2
        )
        assert output.text.startswith("hello world")
        started = output.events[0]
        assert isinstance(started, Started)
        prompt = b"".join(each.token_bytes for each in started.prompt_logprobs)
        assert prompt.decode().endswith("hello world")

    async def test_more_than_a_message_can_carry_is_refused(self, client: EngineClient) -> None:
        if await refuses(client, "prompt_top_logprobs"):
            return
        with pytest.raises(InvalidRequestError, match="at most 250000") as refused:
            await client.submit("hello " * 100, prompt_top_logprobs=20, choices=128)
        assert refused.value.field == "sampling.prompt_top_logprobs"

    async def test_a_one_token_prompt_has_nothing_to_tell(self, client: EngineClient) -> None:
        if await refuses(client, "prompt_top_logprobs"):
            return
        output = await client.run((5,), prompt_top_logprobs=1, max_tokens=1)
        started = output.events[0]
        assert isinstance(started, Started)
        assert [math.isnan(each.logprob) for each in started.prompt_logprobs] == [True]
