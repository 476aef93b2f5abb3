"""How an engine starts, stops and lives on. Holds for every engine."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from services.mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    QueueFullError,
    UnavailableError,
)
from services.worker.engines.base import (
    Finished,
)
from tests.contract.conftest import MAX_RUNNING, MAX_WAITING, StartEngine
from tests.contract.engine_client import EngineClient
from tests.contract.engine_requests import fill
from tests.models import CONTEXT_TOKENS


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
