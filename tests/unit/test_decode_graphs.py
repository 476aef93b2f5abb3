"""Padded decoding steps over memory that stays where it is: the same logits as without."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import structlog
import torch

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.attention.cpu_kernels import CpuKernels
from services.worker.engines.transformers.attention.function import (
    ATTENTION_NAME,
    shape_recording,
)
from services.worker.engines.transformers.attention.gathered import GatheredKernels
from services.worker.engines.transformers.attention.kernels import BlockKernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Piece
from services.worker.engines.transformers.checkpoint.loading import load_checkpoint
from services.worker.engines.transformers.decode_graphs import DecodeGraphs, padded_rows
from services.worker.engines.transformers.model_runner import ModelRunner
from tests.models import checkpoint

BLOCKS = 40
BLOCK_TOKENS = 32
CONTEXT_TOKENS = 128
MAX_ROWS = 12
CPU = torch.device("cpu")


class Replays:
    """Stands in for the device's graphs: calls again what it was given, and counts."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        step()

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


@cache
def model() -> tuple[Any, Any]:
    """A tiny Llama whose attention is ours, and the shapes of its layers."""
    settings = EngineSettings(str(checkpoint()), device="cpu", dtype="float32")
    loaded = load_checkpoint(settings).model
    loaded.set_attn_implementation(ATTENTION_NAME)
    with shape_recording() as shapes, torch.inference_mode():
        loaded(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    return loaded, list(shapes)


def runner(kernels: BlockKernels) -> ModelRunner:
    loaded, shapes = model()
    kept = KVCache(
        shapes, blocks=BLOCKS, block_tokens=BLOCK_TOKENS, dtype=torch.float32, device=CPU
    )
    return ModelRunner(loaded, kept, kernels, CPU)


def generate(one: ModelRunner, prompts: list[list[int]], steps: int) -> list[list[int]]:
    """Greedy tokens of sequences that come one by one and leave in another order."""
    free = list(range(BLOCKS))
    tokens = [list(prompt) for prompt in prompts]
    tables: list[list[int]] = [
        [free.pop() for _ in range(CONTEXT_TOKENS // BLOCK_TOKENS)] for _ in prompts
    ]
    for number, prompt in enumerate(prompts):
        piece = Piece(tables[number], 0, len(prompt))
        logits = one.forward(prompt, [], [piece], [len(prompt) - 1])
        tokens[number].append(int(logits[0].argmax()))
    for step in range(steps):
        # Step by step another number of rows, and another order.
        running = [each for each in range(len(prompts)) if (each + step) % 5 or step < 2]
        rows = running[step % len(running) :] + running[: step % len(running)]
        pieces = [Piece(tables[each], len(tokens[each]) - 1, 1) for each in rows]
        logits = one.forward([tokens[each][-1] for each in rows], pieces, [], range(len(rows)))
        assert logits.shape[0] == len(rows)
        for each, row in zip(rows, logits, strict=True):
            tokens[each].append(int(row.argmax()))
    return tokens


@pytest.mark.parametrize("kernels", [GatheredKernels(), CpuKernels(1)], ids=["torch", "numba"])
def test_replayed_steps_choose_the_tokens_of_plain_ones(kernels: BlockKernels) -> None:
    source = random.Random(3)
    prompts = [
        [source.randrange(5, 300) for _ in range(length)] for length in (1, 31, 32, 33, 60, 7, 3)
    ]
    plain = generate(runner(kernels), prompts, 30)
    replays = Replays()
    recording = runner(kernels)
    recording.record_decoding(replays, max_rows=MAX_ROWS, context_tokens=CONTEXT_TOKENS)
    assert generate(recording, prompts, 30) == plain
    assert replays.recorded == 1
    assert replays.replayed == 29


def test_padding_writes_only_to_the_spare_block() -> None:
    one = runner(GatheredKernels())
    one.record_decoding(Replays(), max_rows=MAX_ROWS, context_tokens=CONTEXT_TOKENS)
    kept = one._cache
    for _ in range(2):
        # Five rows are padded to eight, first when they are recorded, then when they are replayed.
        for layer in kept.layers.values():
            layer.keys.zero_()
        one.forward([1] * 5, [Piece([at + 3], 4, 1) for at in range(5)], [], range(5))
        for layer in kept.layers.values():
            written = layer.keys.abs().sum((1, 2, 3)).nonzero()[:, 0].tolist()
            assert written == [3, 4, 5, 6, 7, kept.spare_block]


def test_each_number_of_rows_is_recorded_once() -> None:
    replays = Replays()
    one = runner(GatheredKernels())
    one.record_decoding(replays, max_rows=MAX_ROWS, context_tokens=CONTEXT_TOKENS)
    for rows in (1, 2, 3, 4, 5, 8, 9, 12, 1, 3):
        one.forward([1] * rows, [Piece([at], 0, 1) for at in range(rows)], [], range(rows))
    assert replays.recorded == len({padded_rows(rows) for rows in (1, 2, 3, 5, 9)}) == 5
    assert replays.replayed == 5


def test_steps_with_prompts_and_larger_ones_run_plainly() -> None:
    replays = Replays()
    one = runner(GatheredKernels())
    one.record_decoding(replays, max_rows=4, context_tokens=CONTEXT_TOKENS)
    one.forward([1, 2, 3], [Piece([0], 0, 1)], [Piece([1], 0, 2)], [0, 2])
    one.forward([1, 2], [Piece([0], 0, 1), Piece([1], 0, 1)], [], [1])
    one.forward([1] * 5, [Piece([at], 0, 1) for at in range(5)], [], range(5))
    assert replays.recorded == 0


def test_what_cannot_be_recorded_runs_plainly_from_then_on() -> None:
    attempts = 0

    def refuse(step: Callable[[], None]) -> Callable[[], None]:
        nonlocal attempts
        step()
        attempts += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    plain = generate(runner(GatheredKernels()), [[5, 6, 7]], 4)
    one = runner(GatheredKernels())
    one.record_decoding(refuse, max_rows=MAX_ROWS, context_tokens=CONTEXT_TOKENS)
    with structlog.testing.capture_logs() as logs:
        assert generate(one, [[5, 6, 7]], 4) == plain
    assert attempts == 1
    assert [each["log_level"] for each in logs] == ["warning"]


def test_what_a_model_raises_is_no_reason_to_stop_recording() -> None:
    fails = True

    def compute(_: object) -> torch.Tensor:
        if fails:
            raise MemoryError
        return torch.zeros(1, 3)

    kept = KVCache([], blocks=1, block_tokens=BLOCK_TOKENS, dtype=torch.float32, device=CPU)
    replays = Replays()
    graphs = DecodeGraphs(compute, replays, kept, max_rows=1, table_blocks=1)
    step = ([1], [Piece([0], 0, 1)])
    with pytest.raises(MemoryError):
        graphs.run(*step)
    fails = False
    assert graphs.run(*step) is not None
    assert graphs.run(*step) is not None
    assert (replays.recorded, replays.replayed) == (1, 1)


def test_rows_are_padded_little() -> None:
    numbers = [padded_rows(rows) for rows in range(1, 600)]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers))[:14] == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112]
    for rows, padded in enumerate(numbers, 1):
        assert rows <= padded <= max(rows + 7, rows * 1.25)
        assert padded_rows(padded) == padded
