"""What an engine hands out for a request. Holds for every engine."""

from __future__ import annotations

from dataclasses import replace

from services.worker.engines.base import (
    ChatPrompt,
    Chunk,
    Finished,
    FinishReason,
    Started,
)
from tests.contract.conftest import MAX_RUNNING
from tests.contract.engine_client import EngineClient
from tests.contract.engine_requests import fill, text_of


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

    async def test_a_chat_that_was_rendered_is_the_same_prompt(self, client: EngineClient) -> None:
        engine, model = client.engine, client.model
        chat = ChatPrompt([{"role": "user", "content": "Grüße!"}])
        rendered = replace(chat, rendered=await engine.render(model, chat))
        ids = await engine.tokenize(model, chat, add_special_tokens=True)
        assert await engine.tokenize(model, rendered, add_special_tokens=True) == ids

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
