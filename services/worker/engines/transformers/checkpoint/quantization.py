"""Shrinks weights while they are loaded, with bitsandbytes; and names how weights are kept."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.source import one_line

INT8 = "int8"
"""Rounded by layers/ once they are loaded, not by transformers."""

_BITS = {"8bit": 8, "4bit": 4}
_NF4_CPU_INPUTS, _NF4_CPU_OUTPUTS = 64, 32
"""The CPU kernel of bitsandbytes 0.50 crashes for layers whose sizes are no multiples of these."""


@dataclass(frozen=True)
class Quantization:
    """How the weights of a model are shrunk."""

    bits: int
    kept: Sequence[str]
    """Linear layers that stay as they are."""
    shrunk: Sequence[str]
    """Those that are shrunk."""

    @property
    def name(self) -> str:
        """What the model's description says."""
        return f"bitsandbytes-{self.bits}bit"

    def config(self, dtype: torch.dtype, *, is_offloaded: bool) -> BitsAndBytesConfig:
        """What transformers is told. Layers that are offloaded stay unshrunk."""
        kept = list(self.kept)
        if self.bits == 8:
            return BitsAndBytesConfig(
                load_in_8bit=True,
                llm_int8_skip_modules=kept,
                llm_int8_enable_fp32_cpu_offload=is_offloaded,
            )
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
            llm_int8_enable_fp32_cpu_offload=is_offloaded,
        )


def choose_quantization(
    asked: str | None, config: Any, model: torch.nn.Module | None, device: torch.device
) -> Quantization | None:
    """How the weights will be shrunk; None where they stay as the checkpoint has them.

    Args:
        asked: one of QUANTIZATIONS, or None.
        config: the model's configuration.
        model: the model, without weights; None for a checkpoint that is quantized already.
        device: where it will run.

    Raises:
        StartError: the checkpoint is quantized already, the model has nothing to shrink, the
            device cannot run it, or bitsandbytes is missing.
    """
    if asked in (None, "none"):
        return None
    if asked == INT8:
        _require_int8(config, model, device)
        return None
    bits = _BITS[asked]
    if model is None:
        raise StartError(
            f"--load-{bits}bit is for checkpoints that are not quantized, and this one is: "
            f"{checkpoint_quantization(config)}"
        )
    if device.type == "mps":
        raise StartError(f"--load-{bits}bit does not run on mps: choose cpu or cuda")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise StartError(
            f"--load-{bits}bit needs the Python package 'bitsandbytes', which is not installed: "
            "pip install bitsandbytes"
        )
    # It says in each call that it casts its input.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    usual = set(get_keys_to_not_convert(model))
    kept, shrunk = sorted(usual), []
    for name, module in model.named_modules():
        sizes = _sizes(module)
        if sizes is None or name in usual:
            continue
        if bits == 4 and device.type == "cpu" and not _fits_cpu_kernel(*sizes):
            kept.append(name)
        else:
            shrunk.append(name)
    if not shrunk:
        raise StartError(
            f"--load-{bits}bit finds no layer to shrink in model type {config.model_type!r}"
            + (
                f": on a CPU, inputs must be multiples of {_NF4_CPU_INPUTS} and outputs of "
                f"{_NF4_CPU_OUTPUTS}"
                if len(kept) > len(usual)
                else ""
            )
        )
    return Quantization(bits, tuple(kept), tuple(shrunk))


def _require_int8(config: Any, model: torch.nn.Module | None, device: torch.device) -> None:
    if model is None:
        raise StartError(
            "--quantization int8 is for checkpoints that are not quantized, and this one is: "
            f"{checkpoint_quantization(config)}"
        )
    if device.type != "cpu":
        raise StartError(
            f"--quantization int8 is for CPUs, not for {device.type}: choose 8bit or 4bit"
        )


def require_running(model: Any, quantization: Quantization) -> None:
    """Runs two tokens through a shrunk model.

    Raises:
        StartError: it does not run: its own code does with a layer what bitsandbytes' cannot do.
    """
    tokens = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    more = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    try:
        with torch.inference_mode():
            model(input_ids=tokens, **more)
    except Exception as error:
        raise StartError(
            f"--load-{quantization.bits}bit does not run with model type "
            f"{model.config.model_type!r}: {one_line(error)}"
        ) from error


def checkpoint_quantization(config: Any) -> str:
    """How the checkpoint itself is quantized, such as "gptq-4bit"; empty where it is not."""
    given = getattr(config, "quantization_config", None)
    if given is None:
        return ""
    values = given if isinstance(given, dict) else given.to_dict()
    method = str(getattr(values.get("quant_method"), "value", values.get("quant_method") or ""))
    bits = values.get("bits")
    if method == "bitsandbytes":
        bits = 4 if values.get("load_in_4bit") else 8
    return f"{method}-{bits}bit" if isinstance(bits, int) else method


def _sizes(module: torch.nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a layer of the kinds that bitsandbytes takes the place of."""
    if type(module) is torch.nn.Linear:
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(inputs), int(outputs)
    return None


def _fits_cpu_kernel(inputs: int, outputs: int) -> bool:
    return inputs % _NF4_CPU_INPUTS == 0 and outputs % _NF4_CPU_OUTPUTS == 0
