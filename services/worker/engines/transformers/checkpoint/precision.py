"""Chooses the type of the weights, by device and checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from services.mesh.errors import StartError

_NATIVE_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Of /proc/cpuinfo: x86 with AVX-512 or AMX, and Arm."""


def choose_dtype(
    name: str,
    device: torch.device,
    checkpoint: torch.dtype | None,
    *,
    has_bfloat16: bool,
) -> torch.dtype:
    """The type of the weights.

    Args:
        name: one of DTYPES of the settings; see EngineSettings.dtype for what "auto" means.
        device: where the weights go.
        checkpoint: what they are stored as, if known.
        has_bfloat16: whether the device computes in bfloat16 natively.

    Raises:
        StartError: the device does not compute in the type asked for.
    """
    if name != "auto":
        if name == "bfloat16" and not has_bfloat16 and device.type != "cpu":
            raise StartError(
                f"--dtype is bfloat16, in which {device} does not compute: choose float16 or "
                "float32"
            )
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cpu":
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if device.type == "xpu":
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if checkpoint == torch.float16 or device.type in ("mps", "npu"):
        keeps = checkpoint == torch.bfloat16 and has_bfloat16
        return torch.bfloat16 if keeps else torch.float16
    return torch.bfloat16 if has_bfloat16 else torch.float16


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 by itself, without converting back and forth."""
    if device.type == "cpu":
        return cpu_has_native_bfloat16(os.environ, Path("/proc/cpuinfo"))
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        # Since macOS 14. Asked by trying: torch has no question for it.
        try:
            torch.ones(1, dtype=torch.bfloat16, device=device) + 1
        except (RuntimeError, TypeError):
            return False
        return True
    supported = getattr(getattr(torch, device.type), "is_bf16_supported", None)
    return bool(supported()) if supported is not None else device.type == "npu"


def cpu_has_native_bfloat16(environment: Mapping[str, str], cpu_info: Path) -> bool:
    """Whether the CPU has instructions for bfloat16: AVX-512 BF16, AMX, or Arm's BF16.

    FastChat's variable CPU_ISA, set to avx512_bf16 or amx, says so, too.
    """
    if environment.get("CPU_ISA") in ("avx512_bf16", "amx"):
        return True
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _NATIVE_FLAGS.isdisjoint(flags.partition(":")[2].split())
