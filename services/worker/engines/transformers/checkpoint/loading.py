"""Loads a checkpoint: model, tokenizer and what its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.declarations import (
    context_length,
    end_ids,
    sampling_defaults,
)
from services.worker.engines.transformers.checkpoint.device import choose_device
from services.worker.engines.transformers.checkpoint.library_logs import quiet_libraries
from services.worker.engines.transformers.checkpoint.revision import checkpoint_revision
from services.worker.engines.transformers.checkpoint.source import (
    find_source,
    read_config,
)
from services.worker.engines.transformers.checkpoint.tokenizer import load_tokenizer
from services.worker.engines.transformers.checkpoint.weights import (
    load_weights,
    weight_format,
    weights_dtype,
)
from services.worker.engines.transformers.layers.fusion import weight_bytes as bytes_of_weights


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
    quiet_libraries()
    source = find_source(settings)
    config = read_config(source)
    use_safetensors = weight_format(source, settings)
    tokenizer = load_tokenizer(source, settings.chat_template_path)
    dtype = weights_dtype(settings, config, device)
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    weights = load_weights(
        source,
        config,
        family,
        settings,
        use_safetensors=use_safetensors,
        device=device,
        dtype=dtype,
    )
    model = weights.model
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        name=source.name,
        revision=checkpoint_revision(source, config, settings),
        device=weights.device,
        dtype=dtype,
        quantization=weights.quantization,
        device_map=weights.device_map,
        context_length_tokens=context_length(
            config.get_text_config(decoder=True), tokenizer, settings
        ),
        end_ids=end_ids(model.generation_config, tokenizer),
        sampling_defaults=sampling_defaults(model.generation_config),
    )
