"""Tries a loaded model before it serves."""

from __future__ import annotations

from typing import Any

import torch

from services.mesh.errors import StartError
from services.worker.engines.encoder.job import Row
from services.worker.engines.encoder.model import RowModel
from services.worker.engines.transformers.checkpoint.quantization import INT8
from services.worker.engines.transformers.checkpoint.source import one_line
from services.worker.engines.transformers.checkpoint.weights import Weights
from services.worker.engines.transformers.layers.fusion import shared_inputs
from services.worker.engines.transformers.layers.proven_fusion import fuse_if_same

_PROBE_TOKENS = 8
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_16_BIT = 0.1

_PROVEN_TOKENS = 1024
"""Longer texts are not tried: models that read them compute positions instead of looking them
up, and one text may take an old CPU seconds."""


def prove(
    runs: RowModel, weights: Weights, *, vocabulary_size: int, max_tokens: int
) -> torch.Tensor:
    """Makes the model's linear layers fast, and runs it up to its longest text.

    Returns what it makes of a short text.

    Raises:
        StartError: the model does not run, or makes no numbers.
    """
    probe = [_row(min(_PROBE_TOKENS, max_tokens), vocabulary_size)]
    with shared_inputs(weights.model) as groups:
        reference = _compute(runs, probe)
    if weights.device.type == "cpu" and not weights.device_map:
        rounds = weights.quantization == INT8
        if rounds or not weights.quantization:
            fuse_if_same(
                weights.model,
                groups,
                rounds=rounds,
                compute=lambda: _compute(runs, probe),
                reference=reference,
                tolerance=_TOLERANCE_16_BIT
                if rounds
                else _TOLERANCE.get(weights.dtype, _TOLERANCE_16_BIT),
            )
    if max_tokens <= _PROVEN_TOKENS:
        _compute(runs, [_row(max_tokens, vocabulary_size)])
    return reference


@torch.inference_mode()
def sees_forward(model: Any, device: torch.device) -> bool:
    """Whether what a model makes of a token depends on those behind it."""
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=device)
    first, second = model(input_ids=ids).last_hidden_state[:, 0]
    return not torch.allclose(first, second, rtol=1e-3, atol=1e-4)


def _row(tokens: int, vocabulary_size: int) -> Row:
    return Row(tuple((7 + 13 * place) % vocabulary_size for place in range(tokens)))


def _compute(runs: RowModel, rows: list[Row]) -> torch.Tensor:
    try:
        result = runs.compute(rows)
    except Exception as error:
        raise StartError(f"the model does not run: {one_line(error)}") from error
    if not bool(result.isfinite().all()):
        raise StartError(
            "the model makes no numbers of a text: its weights are damaged, or too large for the "
            "type: try --dtype float32"
        )
    return result
