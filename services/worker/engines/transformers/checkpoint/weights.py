"""Reads the weights of a checkpoint onto the device, or the devices, in the type they will have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.device import free_memory
from services.worker.engines.transformers.checkpoint.model_reading import read_model
from services.worker.engines.transformers.checkpoint.placement import (
    DISK,
    FreeMemory,
    Placement,
    memory_table,
    place_weights,
)
from services.worker.engines.transformers.checkpoint.precision import (
    choose_dtype,
    has_native_bfloat16,
)
from services.worker.engines.transformers.checkpoint.quantization import (
    INT8,
    Quantization,
    checkpoint_quantization,
    choose_quantization,
    require_running,
)
from services.worker.engines.transformers.checkpoint.skeleton import (
    Skeleton,
    build_skeleton,
    is_offloaded,
)
from services.worker.engines.transformers.checkpoint.source import Source
from services.worker.engines.transformers.checkpoint.weight_files import check_weight_files

log = structlog.get_logger()


@dataclass(frozen=True)
class Weights:
    """A model with its weights."""

    model: Any
    device: torch.device
    """Where token ids go in and results come out."""
    dtype: torch.dtype
    quantization: str
    """See Checkpoint."""
    device_map: Mapping[str, str]
    """See Checkpoint."""


def weights_dtype(settings: EngineSettings, config: Any, device: torch.device) -> torch.dtype:
    """The type that the weights will have.

    Raises:
        StartError: the device does not compute in the type asked for.
    """
    has_bfloat16 = has_native_bfloat16(device)
    dtype = choose_dtype(
        settings.dtype, device, getattr(config, "dtype", None), has_bfloat16=has_bfloat16
    )
    if dtype.itemsize == 2 and device.type == "cpu" and not has_bfloat16:
        log.warning("this CPU computes in 16-bit types slowly: float32 is faster", dtype=str(dtype))
    return dtype


def weight_format(source: Source, settings: EngineSettings) -> bool | None:
    """Whether the weights are safetensors; None where either is welcome, and a hub decides.

    Raises:
        StartError: a folder's files are missing, damaged, or of a kind that may not be read.
    """
    if source.folder is not None:
        return check_weight_files(source.folder, allow_pickle=settings.allow_pickle)
    return None if settings.allow_pickle else True


def load_weights(
    source: Source,
    config: Any,
    family: Any,
    settings: EngineSettings,
    *,
    use_safetensors: bool | None,
    device: torch.device,
    dtype: torch.dtype,
    model_arguments: Mapping[str, Any] | None = None,
) -> Weights:
    """Reads the weights, shrunk and spread as the settings say.

    Args:
        source: the checkpoint.
        config: its configuration.
        family: the class of transformers that knows which architecture it is.
        settings: how weights are shrunk and spread.
        use_safetensors: see `weight_format`.
        device: the chosen device.
        dtype: the type that they will have.
        model_arguments: of the model's class, beside its configuration.

    Raises:
        StartError: the weights cannot be read, do not fit, or do not run.
    """
    given = checkpoint_quantization(config)
    own = dict(model_arguments or {})
    # The layers of a quantized checkpoint are known to its loader alone.
    skeleton = None if given else build_skeleton(source, family, config, dtype, own)
    quantization = choose_quantization(
        settings.quantization, config, skeleton.model if skeleton else None, device
    )
    weight_bytes = skeleton.weight_bytes(quantization) if skeleton else None
    free = free_memory(device)
    placement = place_weights(str(device), weight_bytes, free, settings)
    device_map = _spread(placement, free, skeleton, quantization)
    arguments: dict[str, Any] = {"config": config, "dtype": dtype, **own}
    if quantization is not None:
        offloaded = is_offloaded(device_map, placement.device)
        arguments["quantization_config"] = quantization.config(dtype, is_offloaded=offloaded)
    if device_map:
        arguments |= {"device_map": device_map, "offload_folder": placement.offload_folder}
    elif device.type != "cpu" or quantization is not None:
        # Weights go straight to an accelerator instead of through a copy in host memory.
        arguments["device_map"] = {"": placement.device}
    model = read_model(source, family, use_safetensors=use_safetensors, arguments=arguments)
    if quantization is not None:
        require_running(model, quantization)
    return Weights(
        model,
        torch.device(placement.device),
        dtype,
        INT8 if settings.quantization == INT8 else quantization.name if quantization else given,
        device_map,
    )


def _spread(
    placement: Placement,
    free: FreeMemory,
    skeleton: Skeleton | None,
    quantization: Quantization | None,
) -> dict[str, str]:
    """The device of each part of the model, logged as a table; empty where one holds all."""
    if not placement.limits:
        return {}
    if skeleton is None:
        raise StartError(
            "a checkpoint that is quantized already goes to one device: leave out --num-gpus, "
            "--cpu-offload and --offload-folder"
        )
    device_map = skeleton.spread(placement.limits, quantization)
    if DISK in device_map.values() and placement.offload_folder is None:
        raise StartError(
            "the weights do not fit by a little, as layers are kept whole: raise --max-gpu-memory "
            "or --max-cpu-memory, or give an --offload-folder"
        )
    if set(device_map.values()) == {placement.device}:
        return {}
    weights = skeleton.bytes_by_device(device_map, quantization)
    log.info("weights by device\n" + memory_table(free, placement, weights))
    if is_offloaded(device_map, placement.device):
        log.warning("some weights are brought to the device in every step, which is slow")
    return device_map
