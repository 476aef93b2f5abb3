"""Loads a checkpoint: model, tokenizer and what its configuration says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.device import choose_device, choose_dtype
from services.worker.engines.transformers.checkpoint.revision import folder_revision

log = structlog.get_logger()

T = TypeVar("T")

_DEFAULTS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any
    tokenizer: Any
    name: str
    revision: str
    device: torch.device
    dtype: torch.dtype
    context_length_tokens: int
    end_ids: frozenset[int]
    """Tokens with which the model ends an output."""
    sampling_defaults: Mapping[str, Any]
    """Of its generation config, by the names of SamplingParameters."""

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return sum(each.numel() * each.element_size() for each in self.model.parameters())


def load_checkpoint(settings: EngineSettings) -> Checkpoint:
    """Loads model and tokenizer onto the device. Reads safetensors only, and runs no remote code.

    Raises:
        StartError: there is no such checkpoint or device, or this engine cannot run the model.
    """
    device = choose_device(settings.device)
    _quiet_libraries()
    folder = _folder(settings)
    source = str(folder) if folder else settings.model_path
    options = {"revision": settings.revision or "main", "trust_remote_code": False}
    config = _load(source, lambda: AutoConfig.from_pretrained(source, **options))
    text_config = config.get_text_config(decoder=True)
    dtype = choose_dtype(settings.dtype, device, getattr(config, "dtype", None))
    tokenizer = _load(source, lambda: AutoTokenizer.from_pretrained(source, **options))
    # Weights go straight to an accelerator instead of through a copy in host memory.
    placement = {} if device.type == "cpu" else {"device_map": {"": device}}
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = _load(
        source,
        lambda: family.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, **placement, **options
        ),
    ).eval()
    if settings.chat_template_path is not None:
        tokenizer.chat_template = _read_template(settings.chat_template_path)
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        name=folder.resolve().name if folder else settings.model_path,
        revision=folder_revision(folder) if folder else _commit(config, settings),
        device=device,
        dtype=dtype,
        context_length_tokens=_context_length(text_config, tokenizer, settings),
        end_ids=_end_ids(model.generation_config, tokenizer),
        sampling_defaults=_sampling_defaults(model.generation_config),
    )


def _quiet_libraries() -> None:
    """What goes wrong in them is raised, too, and comes back as one line."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()


def _folder(settings: EngineSettings) -> Path | None:
    """The folder that the model path names; None where it is a hub id."""
    text = settings.model_path
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise StartError(f"folder {text} holds no checkpoint: it has no config.json")
        if settings.revision is not None:
            raise StartError(f"revision {settings.revision!r} is for hub ids, and {text} a folder")
        return path
    if path.exists():
        raise StartError(f"{text} is a file: give the folder of the checkpoint")
    if text.startswith((".", "~", os.sep)) or text.endswith(os.sep) or text.count("/") > 1:
        raise StartError(f"there is no folder {text}")
    return None


def _load(source: str, load: Callable[[], T]) -> T:
    """Turns whatever a loader raises into one line."""
    try:
        return load()
    except Exception as error:
        log.debug("cannot load", source=source, exc_info=True)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise StartError(f"cannot load {source}: {reason}") from error


def _read_template(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read the chat template {path}: {error}") from error


def _commit(config: Any, settings: EngineSettings) -> str:
    return getattr(config, "_commit_hash", None) or settings.revision or "main"


def _context_length(config: Any, tokenizer: Any, settings: EngineSettings) -> int:
    tokens = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        # Beyond its original context such a model rotates all positions of a step differently: one
        # long sequence would change what its neighbours compute.
        original = rope.get("original_max_position_embeddings")
        tokens = min(filter(None, (tokens, original)), default=None)
    if tokens is None and tokenizer.model_max_length < 10**9:
        tokens = tokenizer.model_max_length
    tokens = tokens or settings.context_length_tokens
    if tokens is None:
        raise StartError(
            f"model type {config.model_type!r} does not tell its context length: set "
            "context_length_tokens"
        )
    return int(tokens)


def _end_ids(generation: transformers.GenerationConfig, tokenizer: Any) -> frozenset[int]:
    given = generation.eos_token_id
    ids = set(given) if isinstance(given, list) else {given}
    ids.add(tokenizer.eos_token_id)
    return frozenset(each for each in ids if each is not None)


def _sampling_defaults(generation: transformers.GenerationConfig) -> dict[str, Any]:
    given = generation.to_diff_dict()
    defaults = {name: given[name] for name in _DEFAULTS if given.get(name) is not None}
    if given.get("max_new_tokens"):
        defaults["max_tokens"] = given["max_new_tokens"]
    return defaults
