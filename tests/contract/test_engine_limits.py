"""What an engine bears, and what happens beyond it. Holds for every engine."""

from __future__ import annotations

import time

import pytest

from services.mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    QueueFullError,
)
from tests.contract.conftest import MAX_RUNNING, MAX_WAITING
from tests.contract.engine_client import EngineClient
from tests.contract.engine_requests import HELD, fill


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
