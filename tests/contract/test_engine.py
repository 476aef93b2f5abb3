"""What every engine must obey. See services.worker.engines.base."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from services.mesh.errors import (
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    MeshError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
    UnsupportedError,
)
from services.worker.engines.base import (
    ChatPrompt,
    Chunk,
    Finished,
    FinishReason,
    OutputSoFar,
    Prompt,
    Started,
)
from tests.contract.conftest import MAX_RUNNING, MAX_WAITING, StartEngine
from tests.contract.engine_client import EngineClient, Output
from tests.models import CONTEXT_TOKENS

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


class TestEvents:
    async def test_a_sequence_is_started_chunks_and_one_end_numbered_without_a_gap(
        self, client: EngineClient
    ) -> None:
        output = await client.run("hello world", max_tokens=12, ignore_eos=True)
        assert output.numbers == list(range(len(output.events)))
        assert isinstance(output.events[0], Started)
        assert all(isinstance(event, Chunk) for event in output.events[1:-1])
        assert isinstance(output.events[-1], Finished)

    async def test_usage_counts_the_tokens_that_came(self, client: EngineClient) -> None:
        output = await client.run("hello world", max_tokens=12, ignore_eos=True)
        prompt = await client.engine.tokenize(client.model, "hello world", add_special_tokens=True)
        started = output.events[0]
        assert isinstance(started, Started)
        assert started.prompt_tokens == output.finished.prompt_tokens == len(prompt)
        assert output.finished.completion_tokens == len(output.token_ids) == 12
        assert output.finished.reason is FinishReason.LENGTH
        timing = output.finished.timing
        assert min(timing.queue_s, timing.prefill_s, timing.decode_s) >= 0

    async def test_one_output_per_step_holds_all_running_sequences(
        self, client: EngineClient
    ) -> None:
        # They rest until all are there.
        keys = await fill(client, MAX_RUNNING, max_tokens=60)
        await client.until(lambda: all(client.output(key).token_ids for key in keys))
        for key in keys:
            client.engine.grant_credit(key, 59)
        outputs = [await client.end_of(key) for key in keys]
        numbers = [step.step for step in client.steps]
        assert numbers == sorted(set(numbers))
        assert any(
            {event.key for event in step.events if isinstance(event.event, Chunk)} == set(keys)
            for step in client.steps
        )
        for output in outputs:
            chunk_steps = [
                step
                for step, event in zip(output.steps, output.events, strict=True)
                if isinstance(event, Chunk)
            ]
            assert chunk_steps == sorted(set(chunk_steps))

    async def test_the_chunks_are_the_text_of_the_tokens(self, client: EngineClient) -> None:
        output = await client.run("Grüße", max_tokens=100, ignore_eos=True, temperature=1.5)
        assert output.text == await text_of(client, output)

    async def test_a_chat_is_answered(self, client: EngineClient) -> None:
        assert "CHAT" in client.engine.models[0].capabilities
        messages = [{"role": "user", "content": "Hello!"}]
        output = await client.run(ChatPrompt(messages), max_tokens=5, ignore_eos=True)
        assert len(output.token_ids) == 5

    async def test_token_ids_are_a_prompt(self, client: EngineClient) -> None:
        ids = await client.engine.tokenize(client.model, "hello world", add_special_tokens=True)
        fields = {"max_tokens": 9, "seed": 4, "temperature": 1.0}
        by_ids = await client.run(tuple(ids), **fields)
        by_text = await client.run("hello world", **fields)
        assert by_ids.token_ids == by_text.token_ids

    async def test_echo_repeats_the_prompt_and_counts_it_as_prompt(
        self, client: EngineClient
    ) -> None:
        fields = {"max_tokens": 6, "seed": 4, "ignore_eos": True}
        plain = await client.run("hello world", **fields)
        echoed = await client.run("hello world", own={"echo": True}, **fields)
        assert echoed.text == "hello world" + plain.text
        assert echoed.finished.completion_tokens == plain.finished.completion_tokens

    async def test_a_stream_interval_collects_tokens(self, client: EngineClient) -> None:
        output = await client.run(max_tokens=10, ignore_eos=True, stream_interval_tokens=4)
        assert [len(chunk.token_ids) for chunk in output.chunks] == [4, 4, 2]


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


class TestLimits:
    async def test_no_more_run_and_wait_than_may(self, client: EngineClient) -> None:
        keys = await fill(client, MAX_RUNNING + MAX_WAITING)
        with pytest.raises(QueueFullError) as refused:
            await client.submit(**HELD)
        assert refused.value.retry_after_s is not None
        await client.until(lambda: all(client.output(key).token_ids for key in keys[:MAX_RUNNING]))
        load = client.engine.load()
        assert (load.running, load.waiting) == (MAX_RUNNING, MAX_WAITING)
        assert 0 < load.kv_used_tokens <= client.engine.capacity.kv_total_tokens
        assert not any(client.output(key).events for key in keys[MAX_RUNNING:])

    async def test_abort_frees_a_place_and_silences_the_request(self, client: EngineClient) -> None:
        keys = await fill(client, MAX_RUNNING)
        await client.until(lambda: all(client.output(key).token_ids for key in keys))
        waiting = await client.submit(max_tokens=5, ignore_eos=True)
        client.engine.abort(keys[1])
        client.engine.abort("unknown")
        await client.end_of(waiting)
        client.engine.grant_credit(keys[1], 100)
        after = await client.run(max_tokens=5, ignore_eos=True)
        assert after.is_over
        assert len(client.output(keys[1]).token_ids) == 1

    async def test_a_waiting_request_can_be_aborted(self, client: EngineClient) -> None:
        running = await fill(client, MAX_RUNNING)
        waiting = await client.submit(max_tokens=5)
        client.engine.abort(waiting)
        for key in running:
            client.engine.abort(key)
        await client.until_idle()
        await client.run(max_tokens=2, ignore_eos=True)
        assert not client.output(waiting).events

    async def test_an_aborted_key_may_be_used_again(self, client: EngineClient) -> None:
        (key,) = await fill(client, 1)
        await client.until(lambda: bool(client.output(key).token_ids))
        with pytest.raises(InvalidRequestError):
            await client.engine.submit(client.request(own={"key": key}))
        client.engine.abort(key)
        await client.until_idle()
        await client.engine.submit(client.request(own={"key": key}, max_tokens=2))

    async def test_without_credit_nothing_is_produced(self, client: EngineClient) -> None:
        key = await client.submit(own={"credit_tokens": 3}, max_tokens=10, ignore_eos=True)
        output = client.output(key)
        await client.until(lambda: len(output.token_ids) == 3)
        await client.run(max_tokens=20, ignore_eos=True)
        assert len(output.token_ids) == 3
        client.engine.grant_credit(key, 4)
        await client.until(lambda: len(output.token_ids) == 7)
        client.engine.grant_credit(key, 100)
        assert (await client.end_of(key)).finished.completion_tokens == 10

    async def test_a_passed_deadline_is_refused(self, client: EngineClient) -> None:
        with pytest.raises(DeadlineError):
            await client.submit(own={"deadline_s": time.monotonic() - 1})

    async def test_a_deadline_that_passes_in_the_queue_fails_the_request(
        self, client: EngineClient
    ) -> None:
        await fill(client, MAX_RUNNING)
        late = await client.submit(own={"deadline_s": time.monotonic() + 1})
        output = await client.end_of(late)
        assert isinstance(output.error, DeadlineError)
        assert output.numbers == [0]

    async def test_higher_priority_leaves_the_queue_first(self, client: EngineClient) -> None:
        running = await fill(client, MAX_RUNNING)
        await client.until(lambda: all(client.output(key).token_ids for key in running))
        low = await client.submit(max_tokens=3, ignore_eos=True)
        high = await client.submit(own={"priority": 5}, max_tokens=3, ignore_eos=True)
        client.engine.abort(running[0])
        await client.end_of(low)
        assert client.output(high).steps[-1] <= client.output(low).steps[0]

    async def test_the_load_counts_and_returns_to_nothing(self, client: EngineClient) -> None:
        await client.run(max_tokens=10, ignore_eos=True)
        await client.until_idle()
        load = client.engine.load()
        assert load.generated_tokens == 10
        assert load.kv_used_tokens == 0


class TestRefusals:
    async def test_an_unknown_model(self, client: EngineClient) -> None:
        with pytest.raises(ModelNotFoundError):
            await client.submit(own={"model": "nobody"})
        with pytest.raises(ModelNotFoundError):
            await client.engine.tokenize("nobody", "a", add_special_tokens=True)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("temperature", 2.5),
            ("temperature", float("nan")),
            ("top_p", 1.5),
            ("top_k", -2),
            ("min_p", -0.1),
            ("repetition_penalty", 0.0),
            ("presence_penalty", 3.0),
            ("frequency_penalty", -3.0),
            ("max_tokens", 0),
            ("min_tokens", -1),
            ("choices", 0),
            ("choices", 1000),
            ("top_logprobs", 21),
            ("stop", ("",)),
            ("stop_token_ids", (10**6,)),
            ("logit_bias", {1: 200.0}),
            ("logit_bias", {10**6: 1.0}),
        ],
    )
    async def test_a_field_out_of_range(self, client: EngineClient, field: str, value: Any) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(**{field: value})
        assert refused.value.field == f"sampling.{field}"
        assert client.engine.load().waiting == 0

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("prompt_top_logprobs", 1),
            ("constraint", object()),
            ("best_of", 3),
            ("bad_words", ["a"]),
        ],
    )
    async def test_what_no_engine_can_do_yet(
        self, client: EngineClient, field: str, value: Any
    ) -> None:
        with pytest.raises(UnsupportedError) as refused:
            await client.submit(**{field: value})
        assert refused.value.field == f"sampling.{field}"

    @pytest.mark.parametrize("prompt", ["", (), ChatPrompt([]), (10**6,), (-1,)])
    async def test_a_prompt_that_is_none(self, client: EngineClient, prompt: Prompt) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(prompt)
        assert refused.value.field is not None
        assert refused.value.field.startswith("prompt")

    async def test_a_picture(self, client: EngineClient) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
        with pytest.raises(MeshError) as refused:
            await client.submit(ChatPrompt([{"role": "user", "content": [part]}]))
        assert refused.value.field == "prompt.messages[0].content"

    async def test_what_is_over_the_context(self, client: EngineClient) -> None:
        with pytest.raises(ContextLengthError) as too_much:
            await client.submit("hello", max_tokens=CONTEXT_TOKENS)
        assert too_much.value.field == "sampling.max_tokens"
        ids = await client.engine.tokenize(client.model, "hello " * 10, add_special_tokens=True)
        with pytest.raises(ContextLengthError) as too_long:
            await client.submit((tuple(ids) * CONTEXT_TOKENS)[:CONTEXT_TOKENS])
        assert too_long.value.field == "prompt"

    async def test_a_refused_request_leaves_nothing_behind(self, client: EngineClient) -> None:
        for _ in range(MAX_RUNNING + MAX_WAITING + 1):
            with pytest.raises(InvalidRequestError):
                await client.submit(temperature=9.0)
        await client.run(max_tokens=2, ignore_eos=True)


class TestResume:
    @pytest.mark.parametrize("delivered", ["all", "half"])
    async def test_a_sequence_goes_on_as_if_it_had_not_moved(
        self, client: EngineClient, delivered: str
    ) -> None:
        fields: dict[str, Any] = {
            "max_tokens": 40,
            "seed": 11,
            "temperature": 0.9,
            "ignore_eos": True,
            "frequency_penalty": 0.5,
            "repetition_penalty": 1.1,
        }
        whole = await client.run("Grüße", **fields)
        for cut in (1, 2, 13, 39):
            sent = "".join(chunk.text for chunk in whole.chunks[:cut]).encode()
            if delivered == "half":
                sent = sent.decode()[: len(sent.decode()) // 2].encode()
            so_far = OutputSoFar(tuple(whole.token_ids[:cut]), cut + 1, len(sent))
            rest = await client.run("Grüße", own={"output_so_far": {0: so_far}}, **fields)
            assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
            assert sent.decode() + rest.text == whole.text
            assert rest.numbers == list(range(cut + 1, cut + 1 + len(rest.events)))
            assert rest.finished.completion_tokens == 40

    async def test_a_stop_string_that_began_before_the_cut_is_found(
        self, client: EngineClient
    ) -> None:
        fields: dict[str, Any] = {"max_tokens": 40, "seed": 3, "ignore_eos": True}
        whole = await client.run(temperature=0.8, **fields)
        middle = len("".join(chunk.text for chunk in whole.chunks[:20]))
        stop = whole.text[middle - 2 : middle + 2]
        fields |= {"stop": (stop,), "temperature": 0.8}
        stopped = await client.run(**fields)
        cut = min(20, len(stopped.token_ids) - 1)
        sent = "".join(chunk.text for chunk in stopped.chunks[:cut])
        so_far = OutputSoFar(tuple(stopped.token_ids[:cut]), cut + 1, len(sent.encode()))
        rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
        assert sent + rest.text == stopped.text
        assert rest.finished.stop_string == stop

    async def test_a_sequence_that_was_over_only_ends(self, client: EngineClient) -> None:
        fields: dict[str, Any] = {"max_tokens": 10, "seed": 11, "ignore_eos": True}
        whole = await client.run(**fields)
        so_far = OutputSoFar(tuple(whole.token_ids), 11, len(whole.text.encode()))
        rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
        assert rest.token_ids == []
        assert rest.finished.reason is FinishReason.LENGTH
        assert rest.finished.completion_tokens == 10
        await client.until_idle()

    async def test_a_choice_that_is_not_there_cannot_go_on(self, client: EngineClient) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(own={"output_so_far": {3: OutputSoFar((1,), 2, 0)}})
        assert refused.value.field == "output_so_far.choice_index"


class TestLife:
    async def test_stop_fails_what_runs_and_ends_the_steps(self, start_engine: StartEngine) -> None:
        async with start_engine() as client:
            keys = await fill(client, MAX_RUNNING + 1)
            await client.until(lambda: bool(client.output(keys[0]).token_ids))
        outputs = [client.output(key) for key in keys]
        assert all(isinstance(output.error, UnavailableError) for output in outputs)
        with pytest.raises(UnavailableError):
            await client.engine.submit(client.request())
        await client.engine.stop()

    async def test_text_becomes_tokens_and_text_again(self, client: EngineClient) -> None:
        text = "Hello, wörld!"
        ids = await client.engine.tokenize(client.model, text, add_special_tokens=False)
        again = await client.engine.detokenize(client.model, ids, skip_special_tokens=False)
        assert again == text
        with pytest.raises(InvalidRequestError) as refused:
            await client.engine.detokenize(client.model, [10**6], skip_special_tokens=True)
        assert refused.value.field == "token_ids"

    async def test_it_describes_itself(self, client: EngineClient) -> None:
        (model,) = client.engine.models
        assert model.name
        assert model.revision
        assert {"COMPLETE", "CHAT", "RESUME"} <= model.capabilities
        assert model.context_length_tokens == CONTEXT_TOKENS
        capacity = client.engine.capacity
        assert (capacity.max_running, capacity.max_waiting) == (MAX_RUNNING, MAX_WAITING)
        assert capacity.kv_total_tokens >= CONTEXT_TOKENS


class TestUnderLoad:
    async def test_whatever_comes_and_goes_every_sequence_ends_well(
        self, client: EngineClient
    ) -> None:
        draw = random.Random(5)
        aborted = set()
        kept = []

        async def one_client() -> None:
            for _ in range(8):
                fields: dict[str, Any] = {
                    "max_tokens": draw.randint(1, 12),
                    "choices": draw.randint(1, 3),
                    "seed": draw.randint(0, 9),
                    "ignore_eos": draw.random() < 0.5,
                    "temperature": draw.choice([0.0, 1.0]),
                    "top_p": draw.choice([1.0, 0.8]),
                    "presence_penalty": draw.choice([0.0, 0.5]),
                }
                own = {"deadline_s": time.monotonic() + 0.02} if draw.random() < 0.1 else {}
                try:
                    key = await client.submit("hello " * draw.randint(1, 30), own=own, **fields)
                except (QueueFullError, DeadlineError):
                    await asyncio.sleep(0.01)
                    continue
                if draw.random() < 0.2:
                    await asyncio.sleep(draw.random() * 0.02)
                    aborted.add(key)
                    client.engine.abort(key)
                    continue
                for choice in range(fields["choices"]):
                    output = await client.end_of(key, choice)
                    kept.append((output, fields["max_tokens"]))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(6):
                tasks.create_task(one_client())
        await client.until_idle()
        assert client.engine.load().kv_used_tokens == 0
        assert kept
        assert aborted
        for output, max_tokens in kept:
            assert output.numbers == list(range(len(output.events)))
            if isinstance(output.events[-1], Finished):
                assert output.finished.completion_tokens == len(output.token_ids) <= max_tokens
            else:
                assert isinstance(output.error, DeadlineError)
