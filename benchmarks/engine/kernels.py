"""What the default engine's own CPU kernels take beside torch's: attention and linear layers.

python -m benchmarks.engine kernels [--threads 2] [--rounds 60]

Each pair takes turns, call by call, and the medians of many calls are told: see
docs/adr/*-own-kernels-on-cpu.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks import machine
from benchmarks.tables import table
from services.worker.engines.transformers.attention.cpu_kernels import CpuKernels
from services.worker.engines.transformers.attention.gathered import GatheredKernels
from services.worker.engines.transformers.attention.kernels import BlockKernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.rule import AttentionRule
from services.worker.engines.transformers.checkpoint.device import default_threads
from services.worker.engines.transformers.checkpoint.memory import BLOCK_TOKENS, LayerShape
from services.worker.engines.transformers.layers.products import PackedProduct

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16)
ROWS = (1, 32)
HEADS, KEY_SIZE, KEYS = 8, 64, 155
"""Of one layer: as many heads of keys as of queries."""
LAYERS = ((512, 512), (512, 2048), (512, 32_000))
"""Inputs and outputs."""
WARM_UP = 5

Call = Callable[[], object]


def median_ms(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """The median time of each call. They take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + rounds):
        for name, call in calls.items():
            began_s = time.perf_counter()
            call()
            if turn >= WARM_UP:
                taken[name].append(time.perf_counter() - began_s)
    return {name: statistics.median(each) * 1000 for name, each in taken.items()}


def attention(rows: int, dtype: torch.dtype, threads: int) -> dict[str, Call]:
    """One layer's attention of decoding rows, over KEYS keys each in a cache of a type."""
    blocks = -(-KEYS // BLOCK_TOKENS)
    shape = LayerShape(0, HEADS, KEY_SIZE, KEY_SIZE)
    cache = KVCache(
        [shape], blocks=rows * blocks, block_tokens=BLOCK_TOKENS, dtype=dtype, device=CPU
    )
    layer = cache.layers[0]
    layer.keys.normal_()
    layer.values.normal_()
    # Tables as they are after a while: no two blocks of a row lie side by side.
    tables = torch.arange(rows * blocks, dtype=torch.int32).view(blocks, rows).t().contiguous()
    lengths = torch.full((rows,), KEYS, dtype=torch.int32)
    # All of a StepLayout that decoding looks at.
    layout: Any = SimpleNamespace(tables=tables, lengths=lengths)
    query = torch.randn(rows, HEADS, KEY_SIZE, dtype=dtype)
    rule = AttentionRule(KEY_SIZE**-0.5)

    def attend(kernels: BlockKernels) -> Call:
        return lambda: kernels.decode(query, layer, layout, rule)

    return {"torch": attend(GatheredKernels()), "own": attend(CpuKernels(threads))}


def linear(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> dict[str, Call]:
    """One linear layer."""
    given, weight = (
        torch.randn(rows, inputs, dtype=dtype),
        torch.randn(outputs, inputs, dtype=dtype),
    )
    packed = PackedProduct(weight, None)
    return {"torch": lambda: F.linear(given, weight), "own": lambda: packed(given)}


def measure(threads: int, rounds: int) -> Iterator[list[str]]:
    """A line of the table for each pair."""
    torch.set_num_threads(threads)
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for rows in ROWS:
            pairs = {f"attention, cache in {name}": attention(rows, dtype, threads)}
            for inputs, outputs in LAYERS:
                what = f"linear, {inputs} x {outputs:,}, {name}"
                pairs[what] = linear(rows, inputs, outputs, dtype)
            for what, calls in pairs.items():
                took = median_ms(calls, rounds)
                ratio = took["torch"] / took["own"]
                times = [f"{took[each]:.2f}" for each in ("torch", "own")]
                yield [f"{what}: {rows}", *times, f"{ratio:.1f}"]


def take(threads: int | None, rounds: int) -> Iterator[str]:
    """The report's lines."""
    threads = threads or default_threads()
    if machine.is_busy():
        yield "This machine is busy with something else: the numbers will tell more of that."
    told = machine.describe(("torch", "numba"))
    yield f"{told['cpu']}, {threads} threads, {told['packages']}"
    with torch.inference_mode():
        lines = list(measure(threads, rounds))
    yield table(["what: rows", "torch, ms", "own, ms", "times as fast"], lines)
