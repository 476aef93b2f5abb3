"""The linear layers that some checkpoints put behind the pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from services.mesh.errors import StartError
from services.worker.engines.encoder.checkpoint_files import CheckpointFiles
from services.worker.engines.encoder.recipe import DenseLayer
from services.worker.engines.transformers.checkpoint.source import one_line

_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_WEIGHT, _BIAS = "linear.weight", "linear.bias"


def load_dense(
    layer: DenseLayer, files: CheckpointFiles, device: torch.device, *, allow_pickle: bool
) -> torch.nn.Module:
    """The layer with its weights, in float32: it is small, and all that follows is in float32.

    Raises:
        StartError: its weights are missing, damaged, pickled without `allow_pickle`, or of another
            shape than its configuration says.
    """
    tensors = _tensors(layer.folder, files, allow_pickle=allow_pickle)
    linear = torch.nn.Linear(layer.inputs, layer.outputs, bias=layer.has_bias)
    wanted = {_WEIGHT: linear.weight, **({_BIAS: linear.bias} if layer.has_bias else {})}
    for name, parameter in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != parameter.shape:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise StartError(
                f"{layer.folder} of {files.path}: {name} is {shape}, and must be of shape "
                f"{tuple(parameter.shape)}"
            )
        parameter.data = found.float()
    activation: torch.nn.Module = getattr(torch.nn, layer.activation)()
    return torch.nn.Sequential(linear, activation).to(device).eval()


def _tensors(folder: str, files: CheckpointFiles, *, allow_pickle: bool) -> dict[str, Any]:
    safe = files.find(f"{folder}/{_SAFE}")
    pickled = None if safe else files.find(f"{folder}/{_PICKLED}")
    if safe is None and pickled is None:
        raise StartError(f"{folder} of {files.path} has no weights: {_SAFE} is not there")
    if pickled is not None and not allow_pickle:
        raise StartError(
            f"{folder} of {files.path} has pickled weights only ({_PICKLED}), and reading a pickle "
            "can run code: allow it with --allow-pickle if you trust where it comes from"
        )
    try:
        return _read(safe, pickled)
    except Exception as error:
        raise StartError(
            f"cannot read the weights of {folder} of {files.path}: {one_line(error)}"
        ) from error


def _read(safe: Path | None, pickled: Path | None) -> dict[str, Any]:
    if safe is not None:
        return load_file(safe)
    assert pickled is not None
    tensors: dict[str, Any] = torch.load(pickled, map_location="cpu", weights_only=True)
    return tensors
