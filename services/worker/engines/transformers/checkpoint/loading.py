"""Loads a checkpoint: model, tokenizer and what its configuration says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.utils import logging as transformers_logging

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.declarations import (
    context_length,
    end_ids,
    sampling_defaults,
)
from services.worker.engines.transformers.checkpoint.device import choose_device, free_memory
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
from services.worker.engines.transformers.checkpoint.revision import folder_revision
from services.worker.engines.transformers.checkpoint.skeleton import (
    Skeleton,
    build_skeleton,
    is_offloaded,
)
from services.worker.engines.transformers.checkpoint.source import (
    find_source,
    read_config,
)
from services.worker.engines.transformers.checkpoint.tokenizer import load_tokenizer
from services.worker.engines.transformers.checkpoint.weight_files import check_weight_files
from services.worker.engines.transformers.layers.fusion import weight_bytes as bytes_of_weights

log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any
    tokenizer: Any
    name: str
    revision: str
    device: torch.device
    """Where token ids go in and logits come out."""
    dtype: torch.dtype
    quantization: str
    """How the weights are kept, such as "bitsandbytes-8bit" or "gptq-4bit"; empty for plainly."""
    device_map: Mapping[str, str]
    """Which device holds which part of the model; empty where `device` holds all. Parts on another
    accelerator run there; those on "cpu" beside an accelerator, or on "disk", are brought to
    `device` in every step."""
    context_length_tokens: int
    end_ids: frozenset[int]
    """Tokens with which the model ends an output."""
    sampling_defaults: Mapping[str, Any]
    """Of its generation config, by the names of SamplingParameters."""

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return bytes_of_weights(self.model)

    @property
    def has_plain_weights(self) -> bool:
        """Whether all weights are ordinary tensors on `device`, so that layers may be replaced and
        steps be captured."""
        return not self.quantization and not self.device_map


def load_checkpoint(settings: EngineSettings) -> Checkpoint:
    """Loads model and tokenizer onto the device, or the devices.

    Reads pickles, and runs code that the checkpoint brings, only where the settings allow it.

    Raises:
        StartError: there is no such checkpoint or device, something of it is damaged or missing,
            it does not fit, or this engine cannot run the model.
    """
    device = choose_device(settings.device)
    _quiet_libraries()
    source = find_source(settings)
    config = read_config(source)
    use_safetensors = None if settings.allow_pickle else True
    if source.folder is not None:
        use_safetensors = check_weight_files(source.folder, allow_pickle=settings.allow_pickle)
    tokenizer = load_tokenizer(source, settings.chat_template_path)
    has_bfloat16 = has_native_bfloat16(device)
    dtype = choose_dtype(
        settings.dtype, device, getattr(config, "dtype", None), has_bfloat16=has_bfloat16
    )
    if dtype.itemsize == 2 and device.type == "cpu" and not has_bfloat16:
        log.warning("this CPU computes in 16-bit types slowly: float32 is faster", dtype=str(dtype))
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    given = checkpoint_quantization(config)
    # The layers of a quantized checkpoint are known to its loader alone.
    skeleton = None if given else build_skeleton(source, family, config, dtype)
    quantization = choose_quantization(
        settings.quantization, config, skeleton.model if skeleton else None, device
    )
    weight_bytes = skeleton.weight_bytes(quantization) if skeleton else None
    free = free_memory(device)
    placement = place_weights(str(device), weight_bytes, free, settings)
    device_map = _spread(placement, free, skeleton, quantization)
    arguments: dict[str, Any] = {"config": config, "dtype": dtype}
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
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        name=source.name,
        revision=folder_revision(source.folder) if source.folder else _commit(config, settings),
        device=torch.device(placement.device),
        dtype=dtype,
        quantization=(
            INT8 if settings.quantization == INT8 else quantization.name if quantization else given
        ),
        device_map=device_map,
        context_length_tokens=context_length(
            config.get_text_config(decoder=True), tokenizer, settings
        ),
        end_ids=end_ids(model.generation_config, tokenizer),
        sampling_defaults=sampling_defaults(model.generation_config),
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


def _quiet_libraries() -> None:
    """What goes wrong in them is raised, too, and comes back as one line."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def _commit(config: Any, settings: EngineSettings) -> str:
    return getattr(config, "_commit_hash", None) or settings.revision or "main"
