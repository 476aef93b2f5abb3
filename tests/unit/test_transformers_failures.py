"""What goes wrong in a step hurts only those in it, and the loop lives on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from services.mesh.errors import InternalError, OutOfMemoryError, StartError, UnavailableError
from services.worker.engines import engine_thread
from services.worker.engines.base import FinishReason, StepOutput
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine, assembly
from services.worker.engines.transformers.model_runner import ModelRunner
from services.worker.engines.transformers.outbox import Outbox
from services.worker.engines.transformers.scheduling.scheduler import Scheduler, Work
from services.worker.engines.transformers.step_loop import StepLoop
from services.worker.engines.transformers.text.output import Ending, Output
from tests.contract.engine_client import LIMIT_S, running
from tests.models import checkpoint

POISON = 99
PLAIN: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True, "temperature": 0.0}


def engine(**settings: Any) -> TransformersEngine:
    return TransformersEngine(
        EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1, **settings)
    )


def poison(monkeypatch: pytest.MonkeyPatch, effect: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Makes steps with the poisoned token in a prompt go wrong."""
    run = ModelRunner.run

    def poisoned(self: ModelRunner, step: Sequence[Work]) -> torch.Tensor:
        logits = run(self, step)
        if any(POISON in work.sequence.request.prompt_ids for work in step):
            return effect(logits)
        return logits

    monkeypatch.setattr(ModelRunner, "run", poisoned)


def _raise(error: Exception) -> Callable[[torch.Tensor], torch.Tensor]:
    def effect(_: torch.Tensor) -> torch.Tensor:
        raise error

    return effect


@pytest.mark.parametrize(
    ("effect", "error"),
    [
        (_raise(RuntimeError("a kernel failed")), InternalError),
        (_raise(torch.OutOfMemoryError("no memory")), OutOfMemoryError),
        (lambda logits: logits * float("nan"), InternalError),
    ],
)
async def test_a_failing_sequence_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
    effect: Callable[[torch.Tensor], torch.Tensor],
    error: type[Exception],
) -> None:
    async with running(engine(max_running=3)) as client:
        expected = await client.run("The quick brown fox", **PLAIN)
        poison(monkeypatch, effect)
        good = [await client.submit("The quick brown fox", **PLAIN) for _ in range(2)]
        await client.until(lambda: len(client.output(good[0]).token_ids) > 2)
        bad = await client.submit((5, POISON, 6), **PLAIN)
        failed = await client.end_of(bad)
        outputs = [await client.end_of(key) for key in good]
        again = await client.run("The quick brown fox", **PLAIN)
        await client.until_idle()
    assert type(failed.error) is error
    assert "kernel" not in failed.error.message
    assert [each.token_ids for each in [*outputs, again]] == [expected.token_ids] * 3


async def test_a_token_that_cannot_be_published_fails_its_sequence_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell = Output.tell

    def broken(self: Output, token_id: int, ending: Ending | None) -> Any:
        if self.must_go_on:
            raise KeyError("a bug")
        return tell(self, token_id, ending)

    monkeypatch.setattr(Output, "tell", broken)
    async with running(engine()) as client:
        good = await client.submit(**PLAIN)
        bad = await client.submit(min_tokens=5, **PLAIN)
        assert isinstance((await client.end_of(bad)).error, InternalError)
        assert (await client.end_of(good)).finished.completion_tokens == 20
        await client.until_idle()


async def test_a_model_that_computes_nan_leaves_no_trace_in_its_slot() -> None:
    one = engine(max_running=1)
    async with running(one) as client:
        expected = await client.run("The quick brown fox", **PLAIN)
        assert one._assembly is not None
        runner: Any = one._assembly.step_loop._runner
        weights: torch.Tensor = runner._model.get_input_embeddings().weight
        with torch.no_grad():
            weights[POISON] = float("nan")
        failed = await client.run((5, 6, 7, POISON) * 8, **PLAIN)
        after = await client.run("The quick brown fox", **PLAIN)
    assert isinstance(failed.error, InternalError)
    assert after.token_ids == expected.token_ids


async def test_a_bug_in_the_loop_fails_who_is_there_and_the_loop_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(engine()) as client:
        keys = [await client.submit(**PLAIN | {"max_tokens": 400}) for _ in range(2)]
        await client.until(lambda: all(client.output(key).token_ids for key in keys))

        def broken(self: Scheduler) -> list[Work]:
            monkeypatch.undo()
            raise KeyError("a bug")

        monkeypatch.setattr(Scheduler, "schedule", broken)
        for key in keys:
            assert isinstance((await client.end_of(key)).error, InternalError)
        output = await client.run(**PLAIN)
    assert output.finished.reason is FinishReason.LENGTH


async def test_nothing_is_computed_while_nobody_reads() -> None:
    one = engine()
    await one.start()
    await one.submit(_request(one, max_tokens=500, ignore_eos=True))
    async with asyncio.timeout(LIMIT_S):
        while not one._outbox.is_full:
            await asyncio.sleep(0.01)
    steps = one.steps()
    first = await anext(steps)
    assert first.step == 1
    assert one._outbox.is_full or one.load().running
    read = [first]
    async with asyncio.timeout(LIMIT_S):
        while len(read) < 500:
            read.append(await anext(steps))
    assert [each.step for each in read] == list(range(1, 501))
    await one.stop()


async def test_an_outbox_wakes_its_filler_once_there_is_room() -> None:
    woken = []
    outbox = Outbox(asyncio.get_running_loop(), 2, lambda: woken.append(True))
    for number in range(2):
        outbox.put(StepOutput(number, ()))
    assert outbox.is_full
    outbox.close()
    assert [each.step async for each in outbox] == [0, 1]
    assert woken == [True]
    assert not outbox.is_full
    assert [each async for each in outbox] == []


async def test_an_engine_that_still_loads_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        loading.set()
        go_on.wait(LIMIT_S)
        raise StartError("too late")

    monkeypatch.setattr(assembly, "assemble", slow)
    monkeypatch.setattr(engine_thread, "STOP_LIMIT_S", 0.01)
    one = engine()
    start = asyncio.create_task(one.start())
    await asyncio.to_thread(loading.wait, LIMIT_S)
    start.cancel()
    await one.stop()
    assert [each async for each in one.steps()] == []
    go_on.set()


async def test_whoever_reads_the_steps_learns_of_a_breakdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: StepLoop) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(StepLoop, "run", broken)
    one = engine()
    await one.start()
    with pytest.raises(RuntimeError, match="a bug"):
        async for _ in one.steps():
            pass
    with pytest.raises(UnavailableError):
        await one.submit(_request(one))
    await one.stop()


async def test_an_engine_that_has_not_started_serves_nothing() -> None:
    one = engine()
    with pytest.raises(UnavailableError):
        await one.submit(_request(one, model="m"))
    with pytest.raises(UnavailableError):
        _ = one.models
    await one.stop()


def _request(one: TransformersEngine, model: str = "", **fields: Any) -> Any:
    from services.worker.engines.base import EngineRequest

    return EngineRequest("key", "test", model or one.models[0].name, "hello", fields)
