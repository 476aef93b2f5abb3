"""A step that fails is computed in parts; only what cannot be computed alone fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import OutOfMemoryError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine, step_loop
from services.worker.engines.transformers.idle_release import IdleRelease
from services.worker.engines.transformers.recovery import (
    PassSize,
    Recovery,
    is_out_of_memory,
    tokens_of,
)
from services.worker.engines.transformers.sampling.step import Outcome
from services.worker.engines.transformers.scheduling.work import Work
from tests.contract.engine_client import LIMIT_S, EngineClient, running
from tests.fakes.tight_runner import TightRunner
from tests.models import checkpoint
from tests.sequences import sequence

PLAIN: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0}
PROMPTS = ("The quick brown fox", "Numbers: 0 1 2 3", "Grüße", "Привет, мир. " * 6)


def works_of(*tokens: int) -> list[Work]:
    """One work for each of these numbers of tokens."""
    return [
        Work(sequence(f"s{number}", max(each, 2)), 0, each, samples=True)
        for number, each in enumerate(tokens)
    ]


class Device:
    """Computes works, and fails where it is told to."""

    def __init__(self, fails: Callable[[Rows[Work]], Exception | None]) -> None:
        self._fails = fails
        self.passes: list[int] = []
        self.released = 0
        self.recovery = Recovery(self._run, self._release)

    def compute(self, works: Rows[Work]) -> tuple[list[tuple[Any, int]], list[Any]]:
        """Keys and tokens of what was computed, and keys of what failed."""
        done, failed = [], []
        for part, result in self.recovery.compute(works):
            if isinstance(result, Exception):
                failed.append(part[0].sequence.request.key)
            else:
                assert len(result) == len(part)
                done += [(work.sequence.request.key, work.tokens) for work in part]
        return done, failed

    def _run(self, works: Rows[Work]) -> list[Outcome]:
        self.passes.append(tokens_of(works))
        error = self._fails(works)
        if error is not None:
            raise error
        return [None] * len(works)

    def _release(self) -> None:
        self.released += 1


def memory_for(tokens: int) -> Callable[[Rows[Work]], Exception | None]:
    return lambda works: MemoryError() if tokens_of(works) > tokens else None


class TestFaults:
    def test_a_step_that_goes_well_is_one_pass(self) -> None:
        device = Device(lambda _: None)
        done, failed = device.compute(works_of(1, 1, 5))
        assert done == [("s0", 1), ("s1", 1), ("s2", 5)]
        assert (failed, device.passes, device.released) == ([], [7], 0)

    @given(st.integers(1, 64), st.data())
    def test_a_fault_is_found_among_many_in_few_passes(self, count: int, data: Any) -> None:
        bad = f"s{data.draw(st.integers(0, count - 1))}"

        def fails(works: Rows[Work]) -> Exception | None:
            is_bad = any(work.sequence.request.key == bad for work in works)
            return RuntimeError("a kernel failed") if is_bad else None

        device = Device(fails)
        done, failed = device.compute(works_of(*[1] * count))
        assert failed == [bad]
        assert len(done) == count - 1
        assert len(device.passes) <= 1 + 2 * math.ceil(math.log2(count))
        assert device.recovery.size.tokens is None
        assert device.released == 0


class TestMemory:
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 60))
    def test_memory_for_one_token_is_enough_for_all(self, tokens: list[int], limit: int) -> None:
        device = Device(memory_for(limit))
        works = works_of(*tokens)
        done, failed = device.compute(works)
        assert failed == []
        assert [key for key, _ in done] == [work.sequence.request.key for work in works]
        assert all(0 < some <= work.tokens for (_, some), work in zip(done, works, strict=True))
        assert device.released == device.recovery.out_of_memory
        # The next step knows what fits.
        device.passes.clear()
        device.compute(works)
        assert max(device.passes) <= limit or sum(tokens) <= limit

    def test_a_sequence_that_does_not_fit_alone_fails_alone(self) -> None:
        def fails(works: Rows[Work]) -> Exception | None:
            is_big = any(work.sequence.request.key == "s3" for work in works)
            return torch.OutOfMemoryError("no memory") if is_big else None

        device = Device(fails)
        done, failed = device.compute(works_of(*[1] * 16))
        assert (len(done), failed) == (15, ["s3"])
        # The others are computed in larger passes than it, from now on, too.
        assert device.recovery.size.tokens == 8

    def test_what_is_cut_off_a_prompt_gives_no_token_yet(self) -> None:
        device = Device(memory_for(10))
        (work,) = works_of(32)
        ((part, _),) = device.recovery.compute([work])
        assert (part[0].start, part[0].tokens, part[0].samples) == (0, 8, False)
        assert device.recovery.size.divide([work])[0][0].tokens == 8

    def test_passes_grow_again_slowly_and_without_end(self) -> None:
        size = PassSize()
        size.ran_out(100, 20)
        limits = []
        while size.tokens is not None:
            limits.append(size.tokens)
            size.went_well()
        assert limits == sorted(limits)
        assert len(limits) > 100
        assert limits[-1] < 100
        size.went_well()
        assert size.tokens is None

    def test_works_are_divided_in_order_within_the_limit(self) -> None:
        size = PassSize()
        size.ran_out(100, 4)
        passes = size.divide(works_of(1, 1, 1, 1, 1, 3, 9))
        assert [[work.tokens for work in each] for each in passes] == [[1] * 4, [1, 3], [4]]
        assert passes[2][0].samples is False
        assert passes[1][1].samples is True

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (MemoryError(), True),
            (torch.OutOfMemoryError("CUDA out of memory"), True),
            (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
            (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
            (RuntimeError("shapes do not fit"), False),
            (ValueError("out of memory"), False),
        ],
    )
    def test_errors_of_memory_are_known(self, error: Exception, expected: bool) -> None:
        assert is_out_of_memory(error) is expected

    def test_the_error_of_a_cpu_that_has_no_memory_left_is_known(self) -> None:
        with pytest.raises(RuntimeError) as raised:
            torch.empty(2**55)
        assert is_out_of_memory(raised.value)


def engine(**settings: Any) -> TransformersEngine:
    return TransformersEngine(
        EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1, **settings)
    )


def tighten(client: EngineClient, fits: Callable[[Rows[Work]], bool]) -> TightRunner:
    """Takes memory from a running engine."""
    assembly = client.engine._assembly  # type: ignore[attr-defined]
    loop = assembly.step_loop
    loop._runner = TightRunner(loop._runner, fits)
    tight: TightRunner = loop._runner
    return tight


class TestEngine:
    async def test_outputs_are_the_same_with_memory_for_few(self) -> None:
        async with running(engine(max_running=4)) as client:
            expected = [(await client.run(prompt, **PLAIN)).token_ids for prompt in PROMPTS]
            tight = tighten(client, lambda works: tokens_of(works) <= 3)
            keys = [await client.submit(prompt, **PLAIN) for prompt in PROMPTS]
            outputs = [(await client.end_of(key)).token_ids for key in keys]
            await client.until_idle()
            tried = len(tight.passes)
            tight.passes.clear()
            await client.run(PROMPTS[0], **PLAIN)
        assert outputs == expected
        assert max(tight.passes) <= 4, f"after {tried} passes larger ones are tried one by one"

    async def test_a_request_that_does_not_fit_alone_is_refused_alone(self) -> None:
        async with running(engine(max_running=4)) as client:
            expected = await client.run(PROMPTS[0], **PLAIN)
            tighten(client, lambda works: all(work.start + work.tokens < 40 for work in works))
            short = [await client.submit(PROMPTS[0], **PLAIN) for _ in range(2)]
            long = await client.submit(tuple(range(5, 65)), **PLAIN)
            failed = await client.end_of(long)
            outputs = [await client.end_of(key) for key in short]
            await client.until_idle()
            assert client.engine.load().kv_used_tokens == 0
        assert isinstance(failed.error, OutOfMemoryError)
        assert [each.token_ids for each in outputs] == [expected.token_ids] * 2


class TestIdleRelease:
    def test_memory_goes_back_once_in_each_pause(self) -> None:
        released: list[float] = []
        clock = [0.0]
        idle = IdleRelease(lambda: released.append(clock[0]), after_s=10.0)
        idle.look(50.0)
        assert (released, idle.due_s) == ([], None)
        for now_s in (100.0, 105.0, 109.0):
            idle.worked(now_s)
            clock[0] = now_s + 5
            idle.look(clock[0])
        assert released == []
        assert idle.due_s == 119.0
        for clock[0] in (119.0, 130.0):
            idle.look(clock[0])
        assert released == [119.0]

    async def test_an_engine_releases_when_it_has_nothing_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released: list[torch.device] = []
        monkeypatch.setattr(step_loop, "release_cached", released.append)
        async with running(engine()) as client:
            loop = client.engine._assembly.step_loop  # type: ignore[attr-defined]
            for _ in range(3):
                await client.run(**PLAIN)
            assert released == []
            loop._idle_release._after_s = 0.05
            await client.run(**PLAIN)
            loop._idle_release._after_s = 10.0
            async with asyncio.timeout(LIMIT_S):
                while not released:
                    await asyncio.sleep(0.01)
            await client.run(**PLAIN)
        assert released == [torch.device("cpu")]
