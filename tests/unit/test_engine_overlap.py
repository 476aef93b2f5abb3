"""Telling of a step while the device computes the next one changes when events come, not which."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import replace
from typing import Any

import pytest
import torch

from services.mesh.errors import DeadlineError, InternalError
from services.worker.engines.base import Finished, SequenceEvent, Started, Timing
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine, events
from services.worker.engines.transformers.sampling import step as step_module
from services.worker.engines.transformers.scheduling.work import Work
from services.worker.engines.transformers.step_loop import StepLoop
from tests.contract.engine_client import EngineClient, Output, running
from tests.models import checkpoint

REQUESTS: list[dict[str, Any]] = [
    {"max_tokens": 12, "temperature": 0.0},
    {"max_tokens": 1, "seed": 3},
    {"max_tokens": 20, "seed": 4, "choices": 2, "top_logprobs": 2},
    {"max_tokens": 15, "seed": 5, "stop": ["e", "a"], "temperature": 1.5},
    {"max_tokens": 9, "seed": 6, "stream_interval_tokens": 4, "ignore_eos": True},
    {"max_tokens": 8, "seed": 7, "best_of": 3},
    {"max_tokens": 10, "seed": 8, "min_tokens": 4, "stop_token_ids": list(range(5, 200))},
]


def engine() -> TransformersEngine:
    return TransformersEngine(
        EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1, max_running=6)
    )


def loop_of(client: EngineClient) -> StepLoop:
    loop: StepLoop = client.engine._assembly.step_loop  # type: ignore[attr-defined]
    return loop


async def outputs(*, overlaps: bool) -> list[list[Output]]:
    async with running(engine()) as client:
        loop_of(client)._overlaps = overlaps
        return await asyncio.gather(
            *(
                client.run_choices(
                    each.get("choices", 1), "The quick brown fox", **without_choices(each)
                )
                for each in REQUESTS
            )
        )


def without_choices(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "choices"}


def told(output: Output) -> list[Any]:
    """The events, but for when they came."""
    timeless = Timing(0.0, 0.0, 0.0)
    return [
        replace(each, timing=timeless) if isinstance(each, Finished) else each
        for each in output.events
    ]


async def test_events_are_the_same_in_the_same_order() -> None:
    plain, overlapped = await outputs(overlaps=False), await outputs(overlaps=True)
    for one, other in zip(plain, overlapped, strict=True):
        assert [told(each) for each in one] == [told(each) for each in other]
        for each in other:
            assert each.numbers == list(range(len(each.numbers)))
            assert isinstance(each.events[0], Started)
            assert isinstance(each.events[-1], Finished)


async def test_a_step_is_told_of_after_the_next_was_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    launch = step_module.launch_sampling

    def launched(sampler: Any, works: Rows[Work], logits: torch.Tensor) -> Callable[[], list[Any]]:
        read = launch(sampler, works, logits)
        seen.append("launch")

        def noted() -> list[Any]:
            seen.append("read")
            return read()

        return noted

    def tell(made: Rows[SequenceEvent]) -> None:
        seen.append("publish")
        publish(made)

    monkeypatch.setattr("services.worker.engines.transformers.step_loop.launch_sampling", launched)
    async with running(engine()) as client:
        loop = loop_of(client)
        loop._overlaps = True
        publish = loop._telling._publish
        loop._telling._publish = tell
        await client.run("The", max_tokens=4, temperature=0.0, ignore_eos=True)
    assert seen == ["launch", "read"] + ["launch", "publish", "read"] * 3 + ["publish"]


async def test_what_cannot_be_told_of_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = events.sampled

    def fail_some(sequence: Any, *rest: Any) -> list[SequenceEvent]:
        if sequence.request.sampling.seed == 13 and len(sequence.output.token_ids) == 3:
            raise ValueError("no text")
        return tell(sequence, *rest)

    monkeypatch.setattr(events, "sampled", fail_some)
    async with running(engine()) as client:
        for overlaps in (False, True):
            loop_of(client)._overlaps = overlaps
            good, bad = await asyncio.gather(
                client.run("The", max_tokens=9, seed=12, ignore_eos=True),
                client.run("The", max_tokens=9, seed=13, ignore_eos=True),
            )
            assert len(good.token_ids) == 9
            assert isinstance(bad.error, InternalError)
            assert len(bad.token_ids) == 2
            await client.until_idle()
            assert client.engine.load().kv_used_tokens == 0


async def test_a_deadline_comes_behind_what_was_produced_before() -> None:
    async with running(engine()) as client:
        loop_of(client)._overlaps = True
        own = {"deadline_s": time.monotonic() + 0.3}
        output = await client.run("The", max_tokens=400, ignore_eos=True, own=own)
        await client.until_idle()
    assert isinstance(output.error, DeadlineError)
    assert output.numbers == list(range(len(output.numbers)))
