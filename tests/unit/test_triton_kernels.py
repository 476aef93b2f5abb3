"""The kernels for GPUs, against torch: by Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from services.worker.engines.transformers.attention.gathered import GatheredKernels
from services.worker.engines.transformers.attention.kernels import choose_kernels
from services.worker.engines.transformers.attention.kv_cache import KVCache, LayerCache
from services.worker.engines.transformers.attention.layout import Piece, StepLayout, lay_out
from services.worker.engines.transformers.attention.rule import AttentionRule
from services.worker.engines.transformers.checkpoint.memory import BLOCK_TOKENS, LayerShape

pytest.importorskip("triton")

from services.worker.engines.transformers.attention.triton_kernels import (
    MAX_SPLITS,
    MIN_SPLIT_TOKENS,
    TritonKernels,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The interpreter multiplies bfloat16 as if its bits were whole numbers.
TYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
BLOCKS = 80


class Case:
    """Sequences over a filled cache, whose blocks lie anywhere."""

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        key_size: int,
        value_size: int | None = None,
        decoding: Sequence[int] = (),
        prompts: Sequence[tuple[int, int]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        source = torch.Generator().manual_seed(heads + key_size)
        value_size = value_size or key_size
        cache = KVCache(
            [LayerShape(0, kv_heads, key_size, value_size)],
            blocks=BLOCKS,
            block_tokens=BLOCK_TOKENS,
            dtype=dtype,
            device=DEVICE,
        )
        self.cache = cache.layers[0]
        for kept in (self.cache.keys, self.cache.values):
            kept.copy_(torch.randn(kept.shape, generator=source))
        free = torch.randperm(BLOCKS, generator=source).tolist()

        def piece(position: int, tokens: int) -> Piece:
            count = -(-(position + tokens) // BLOCK_TOKENS)
            return Piece([free.pop() for _ in range(count)], position, tokens)

        rows = [piece(length - 1, 1) for length in decoding]
        spans = [piece(*each) for each in prompts]
        tokens = len(rows) + sum(tokens for _, tokens in prompts)
        self.layout: StepLayout = lay_out(
            [0] * tokens, rows, spans, [], block_tokens=BLOCK_TOKENS, device=DEVICE
        ).layout

        def random(count: int, size: int) -> torch.Tensor:
            # As models hand it over: a view of rows that hold all heads.
            return torch.randn(tokens, count, size, generator=source).to(DEVICE, dtype)

        self.query = random(heads, key_size).transpose(0, 1)
        self.keys, self.values = random(kv_heads, key_size), random(kv_heads, value_size)

    def decode_query(self) -> torch.Tensor:
        return self.query[:, : self.layout.decodes].transpose(0, 1)

    def compare(self, rule: AttentionRule) -> None:
        """Stores the step's tokens; then both attend alike, all rows and all pieces."""
        kernels, torch_kernels = TritonKernels(), GatheredKernels()
        other = LayerCache(self.cache.keys.clone(), self.cache.values.clone())
        kernels.store(self.cache, self.keys, self.values, self.layout)
        torch_kernels.store(other, self.keys, self.values, self.layout)
        torch.testing.assert_close(self.cache.keys, other.keys, rtol=0, atol=0)
        torch.testing.assert_close(self.cache.values, other.values, rtol=0, atol=0)
        bound = TOLERANCE[self.query.dtype]
        if self.layout.decodes:
            rows = self.decode_query()
            computed = kernels.decode(rows, other, self.layout, rule)
            wanted = torch_kernels.decode(rows, other, self.layout, rule)
            assert computed.dtype == rows.dtype
            torch.testing.assert_close(computed.float(), wanted.float(), rtol=bound, atol=bound)
        for span in self.layout.spans:
            part = self.query[:, span.row : span.row + span.length]
            computed = kernels.prefill(part, other, span, self.layout, rule)
            wanted = torch_kernels.prefill(part, other, span, self.layout, rule)
            torch.testing.assert_close(computed.float(), wanted.float(), rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "key_size", "value_size"),
    [
        (4, 4, 16, 16),
        (8, 2, 64, 64),
        (6, 2, 80, 80),
        (4, 1, 8, 24),
        (2, 2, 192, 128),
        (1, 1, 256, 256),
    ],
    ids=str,
)
def test_attends_as_torch_does(
    heads: int, kv_heads: int, key_size: int, value_size: int, dtype: torch.dtype
) -> None:
    case = Case(
        heads=heads,
        kv_heads=kv_heads,
        key_size=key_size,
        value_size=value_size,
        decoding=[1, 33, 300],
        prompts=[(0, 5), (40, 70)],
        dtype=dtype,
    )
    case.compare(AttentionRule(key_size**-0.5))


@pytest.mark.parametrize("window", [None, 1, 40, 1000])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_follows_the_rule(window: int | None, softcap: float | None, has_sinks: bool) -> None:
    case = Case(
        heads=4, kv_heads=2, key_size=16, decoding=[1, 31, 32, 200], prompts=[(0, 33), (60, 40)]
    )
    sinks = torch.linspace(-2, 3, 4, device=DEVICE) if has_sinks else None
    case.compare(AttentionRule(0.5, softcap, window, sinks))


def test_lengths_at_every_border() -> None:
    borders = {each + step for each in (32, 64, MIN_SPLIT_TOKENS) for step in (-1, 0, 1)}
    Case(heads=2, kv_heads=1, key_size=8, decoding=sorted(borders)).compare(AttentionRule(0.3))


def test_long_sequences_have_longer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "services.worker.engines.transformers.attention.triton_kernels.MAX_SPLITS", 4
    )
    longest = 4 * MIN_SPLIT_TOKENS
    case = Case(heads=2, kv_heads=1, key_size=8, decoding=[longest, longest + 1, 2 * longest + 5])
    case.compare(AttentionRule(0.3))
    assert MAX_SPLITS > 4


def test_a_row_is_the_same_whatever_is_beside_it() -> None:
    lengths = [700, 3, 130, 64]
    case = Case(heads=4, kv_heads=2, key_size=16, decoding=lengths)
    rule = AttentionRule(0.25)
    together = TritonKernels().decode(case.decode_query(), case.cache, case.layout, rule)
    for row, length in enumerate(lengths):
        blocks = case.layout.tables[row].tolist()
        alone = lay_out(
            [0], [Piece(blocks, length - 1, 1)], [], [0], block_tokens=BLOCK_TOKENS, device=DEVICE
        ).layout
        own = TritonKernels().decode(case.decode_query()[row : row + 1], case.cache, alone, rule)
        assert torch.equal(own[0], together[row])


# As the interpreter says of a row that is to have no number.
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_what_is_no_number_stays_in_its_row() -> None:
    case = Case(heads=2, kv_heads=1, key_size=8, decoding=[40, 70])
    case.cache.keys[case.layout.tables[0, 0]] = float("nan")
    out = TritonKernels().decode(case.decode_query(), case.cache, case.layout, AttentionRule(0.3))
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_garbage_behind_the_end_changes_nothing() -> None:
    case = Case(heads=2, kv_heads=1, key_size=8, decoding=[40], prompts=[(0, 35)])
    rule = AttentionRule(0.3)
    decoded = TritonKernels().decode(case.decode_query(), case.cache, case.layout, rule)
    span = case.layout.spans[0]
    part = case.query[:, span.row : span.row + span.length]
    filled = TritonKernels().prefill(part, case.cache, span, case.layout, rule)
    for last, kept in ((case.layout.tables[0, 1], 8), (span.blocks[1], 3)):
        case.cache.keys[last, :, :, kept:] = float("nan")
        case.cache.values[last, :, kept:] = float("nan")
    again = TritonKernels().decode(case.decode_query(), case.cache, case.layout, rule)
    assert torch.equal(decoded, again)
    assert torch.equal(filled, TritonKernels().prefill(part, case.cache, span, case.layout, rule))


def test_compiles_for_gpus(tmp_path: Path) -> None:
    """In a process of its own, as this one interprets. No GPU is needed to compile."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel_compilation", "90"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compiled") == 8


def test_is_chosen_on_cuda_alone() -> None:
    assert isinstance(choose_kernels(torch.device("cuda"), torch.bfloat16, 1), TritonKernels)
    assert isinstance(choose_kernels(torch.device("mps"), torch.float16, 1), GatheredKernels)


def test_torch_stands_in_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "services.worker.engines.transformers.attention.triton_kernels"
    monkeypatch.setitem(sys.modules, module, None)
    chosen = choose_kernels(torch.device("cuda"), torch.bfloat16, 1)
    assert isinstance(chosen, GatheredKernels)
