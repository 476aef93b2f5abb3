"""What an engine tells of its steps and its cache. Holds for every engine."""

from __future__ import annotations

from dataclasses import fields

from services.worker.engines.base import EngineCounters
from tests.contract.engine_client import EngineClient

PHASES = {"schedule", "forward", "sample", "publish"}
BLOCK_STATES = {"used", "cached", "free"}
SAMPLING = {"max_tokens": 8, "ignore_eos": True, "temperature": 0.0}


def plain_counts(counters: EngineCounters) -> dict[str, int]:
    """The fields that are one number, where the engine has them."""
    values = {each.name: getattr(counters, each.name) for each in fields(counters)}
    return {name: value for name, value in values.items() if isinstance(value, int)}


async def test_counters_say_what_was_computed(client: EngineClient) -> None:
    before = client.engine.counters()
    assert not any(plain_counts(before).values())
    prompt = tuple(range(5, 85))
    first = await client.run(prompt, **SAMPLING)
    await client.until_idle()
    middle = client.engine.counters()
    second = await client.run(prompt, **SAMPLING)
    await client.until_idle()
    after = client.engine.counters()

    assert after.steps is None or 7 <= after.steps <= 40
    # The first token comes of the prompt, unless the prompt's end was computed before.
    assert after.decoded_tokens is None or 14 <= after.decoded_tokens <= 16
    cached = first.finished.cached_tokens + second.finished.cached_tokens
    assert after.prefilled_tokens is None or after.prefilled_tokens == 160 - cached
    assert after.preemptions in (None, 0)
    assert after.out_of_memory in (None, 0)
    if after.prefix_queried_tokens is None:
        assert (cached, after.prefix_hit_tokens) == (0, None)
    else:
        assert after.prefix_queried_tokens == 160
        assert after.prefix_hit_tokens == cached > 0
    for name, value in plain_counts(middle).items():
        assert value <= plain_counts(after)[name], name


async def test_phases_take_time_and_blocks_are_in_one_state(client: EngineClient) -> None:
    before = client.engine.counters()
    key = await client.submit(**SAMPLING | {"max_tokens": 200})
    await client.until(lambda: bool(client.output(key).token_ids))
    during = client.engine.counters()
    await client.end_of(key)
    await client.until_idle()
    after = client.engine.counters()
    assert set(after.phase_s) in (PHASES, set())
    for phase, seconds in after.phase_s.items():
        assert seconds > before.phase_s[phase], phase
    assert set(after.kv_blocks) in (BLOCK_STATES, set())
    if after.kv_blocks:
        assert after.kv_blocks["used"] == before.kv_blocks["used"] == 0
        assert during.kv_blocks["used"] > 0
        assert sum(after.kv_blocks.values()) == sum(before.kv_blocks.values())
