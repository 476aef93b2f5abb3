"""Replays decoding steps that were recorded once, in place of launching each operation anew.

A recorded step is one of a fixed number of rows over memory that stays where it is: a step is
padded to the next such number, and brought to that memory. A row that pads writes its key and
value to a block that no sequence has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import structlog
import torch

from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import DecodeArrays, Piece, StepLayout
from services.worker.engines.transformers.transfer import Packing, to_device

log = structlog.get_logger()

_FEWEST_ROWS = (1, 2, 4, 8)
_STEP_SHARE = 8
"""Beyond those, numbers of rows rise by an eighth of the next power of two, at least by 8: few
recordings, each of which takes time and memory, and little computed in vain."""


class Recorder(Protocol):
    """Records what a function launches."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """What does the same as `step` again, over the same memory.

        May call `step`, which changes nothing when it is called again.
        """
        ...


def padded_rows(rows: int) -> int:
    """What a step of so many rows is padded to: 1, 2, 4, 8, 16, 24, …, 64, 80, …, 128, 160, …"""
    for few in _FEWEST_ROWS:
        if rows <= few:
            return few
    step = max(8, (1 << (rows - 1).bit_length()) // _STEP_SHARE)
    return -(-rows // step) * step


class DecodeInputs:
    """Memory for the inputs of decoding steps of up to so many rows, which stays where it is.

    Attributes:
        token_ids: `[rows]`.
        layout: where they lie. Its tables are wide enough for the longest sequence.

    Args:
        rows: how many.
        cache: has the blocks.
        table_blocks: blocks of the longest sequence.
    """

    def __init__(self, rows: int, cache: KVCache, table_blocks: int) -> None:
        self._rows = rows
        self._cache = cache
        arrays = self._padded([], DecodeArrays.of([], cache.block_tokens))
        self._packing = Packing.of(arrays)
        self._words = to_device(self._packing.pack(arrays), cache.device)
        self.token_ids, positions, block_ids, offsets, lengths = self._packing.unpack(self._words)
        # What is behind a row's blocks stays from longer sequences: blocks that are there, unread.
        tables = torch.zeros((rows, table_blocks), dtype=torch.int32, device=cache.device)
        self.layout = StepLayout(rows, positions, block_ids, offsets, lengths, tables)

    def load(self, token_ids: Sequence[int], decoding: Sequence[Piece]) -> None:
        """Brings a step of at most as many rows into the memory."""
        step = DecodeArrays.of(decoding, self._cache.block_tokens)
        packed = self._packing.pack(self._padded(token_ids, step))
        device = self._cache.device
        tables = to_device(step.tables, device)
        self._words.copy_(to_device(packed, device))
        self.layout.tables[: tables.shape[0], : tables.shape[1]] = tables

    def _padded(self, token_ids: Sequence[int], step: DecodeArrays) -> list[np.ndarray]:
        """A row that pads is a sequence of one token, in the cache's spare block."""
        missing = (0, self._rows - len(token_ids))
        return [
            np.pad(np.array(token_ids, dtype=np.int64), missing),
            np.pad(step.positions, missing),
            np.pad(step.block_ids, missing, constant_values=self._cache.spare_block),
            np.pad(step.offsets, missing),
            np.pad(step.lengths, missing, constant_values=1),
        ]


class DecodeGraphs:
    """Recorded decoding steps, by their number of rows. Each is recorded when it is first needed.

    Args:
        compute: logits `[rows, vocabulary]` of a step, in float32; the same when called again.
        record: records it.
        cache: has the blocks.
        max_rows: sequences that may run.
        table_blocks: blocks of the longest sequence.
    """

    def __init__(
        self,
        compute: Callable[[DecodeInputs], torch.Tensor],
        record: Recorder,
        cache: KVCache,
        *,
        max_rows: int,
        table_blocks: int,
    ) -> None:
        self._compute = compute
        self._record = record
        self._cache = cache
        self._max_rows = padded_rows(max_rows)
        self._table_blocks = table_blocks
        self._steps: dict[int, tuple[DecodeInputs, Callable[[], None]]] = {}
        self._logits: torch.Tensor | None = None
        self._works = True

    def run(self, token_ids: Sequence[int], decoding: Sequence[Piece]) -> torch.Tensor | None:
        """Logits of each row of a step. They last until the next call. None: it has no recording.

        May raise what computing raises.
        """
        count = len(decoding)
        rows = padded_rows(count)
        if not self._works or rows > self._max_rows:
            return None
        if rows in self._steps:
            inputs, replay = self._steps[rows]
            inputs.load(token_ids, decoding)
            replay()
            assert self._logits is not None
            return self._logits[:count]
        inputs = DecodeInputs(rows, self._cache, self._table_blocks)
        inputs.load(token_ids, decoding)
        # Also compiles what is compiled on first use, which no recording bears.
        logits = self._compute(inputs)
        self._add(rows, inputs, logits)
        return logits[:count]

    def _add(self, rows: int, inputs: DecodeInputs, logits: torch.Tensor) -> None:
        # One for all numbers of rows: with a large vocabulary it is large.
        if self._logits is None:
            self._logits = logits.new_empty((self._max_rows, logits.shape[1]))
        kept = self._logits[:rows]

        def step() -> None:
            kept.copy_(self._compute(inputs))

        try:
            self._steps[rows] = inputs, self._record(step)
        except Exception as error:
            log.warning(
                "decoding steps cannot be recorded: each operation is launched anew, slower",
                rows=rows,
                error=repr(error),
            )
            self._works = False
            self._steps.clear()


class CudaRecorder:
    """Records CUDA graphs, which share their temporary memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder`."""
        with torch.cuda.device(self._device):
            self._warm_up(step)
            graph = torch.cuda.CUDAGraph()
            # What other threads do on the device meanwhile must not spoil it.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
        return graph.replay

    def _warm_up(self, step: Callable[[], None]) -> None:
        """Libraries allocate their workspaces on first use of a stream: not while recording."""
        current = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            step()
        current.wait_stream(aside)
