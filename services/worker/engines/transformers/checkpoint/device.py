"""Chooses the device, and asks how much memory is free on this machine's devices."""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from typing import Any

import torch

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.placement import FreeMemory

CPU_KV_SHARE = 0.4
"""Of a machine's free memory: the rest is for the steps, the mesh and everybody else."""

_AUTO_ORDER = ("cuda", "xpu", "mps", "npu")


def choose_device(name: str) -> torch.device:
    """The device called `name`, such as "auto", "cpu" or "cuda:1".

    Raises:
        StartError: this machine, or this build of torch, does not have it.
    """
    kind, _, index = name.partition(":")
    if kind == "auto":
        kind = next((each for each in _AUTO_ORDER if _count(each)), "cpu")
    if index and not index.isdigit():
        raise StartError(f"device {name!r} has no number after the colon, as in 'cuda:1'")
    count = 1 if kind == "cpu" else _count(kind)
    if count == 0:
        raise StartError(
            f"device {name!r} is not there: torch {torch.__version__} finds no such device"
        )
    if int(index or 0) >= count:
        raise StartError(f"device {name!r} is not there: {kind} devices go from 0 to {count - 1}")
    return torch.device(kind) if kind in ("cpu", "mps") else torch.device(kind, int(index or 0))


def free_memory(device: torch.device) -> FreeMemory:
    """What each accelerator of the device's kind, and the host, can still give."""
    kind = device.type
    if kind in ("cpu", "mps"):
        names = [kind] if kind == "mps" else []
    else:
        names = [f"{kind}:{index}" for index in range(_count(kind))]
    return FreeMemory({name: free_bytes(torch.device(name)) for name in names}, _free_host_bytes())


def free_bytes(device: torch.device) -> int:
    """What a device can still give: of an accelerator, its own memory."""
    if device.type == "cpu":
        return _free_host_bytes()
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        return int(limit - torch.mps.current_allocated_memory())
    free, _ = _module(device.type).mem_get_info(device)
    return int(free)


def kv_dtype(device: torch.device, weights: torch.dtype) -> torch.dtype:
    """The type of keys and values: as the model computes them. CPU kernels read no float16."""
    return torch.float32 if device.type == "cpu" and weights == torch.float16 else weights


def kv_budget_bytes(device: torch.device, accelerator_share: float = 0.85) -> int:
    """What the KV cache may take by default, once the weights are loaded.

    Args:
        device: where the cache will be.
        accelerator_share: EngineSettings.gpu_memory_utilization.
    """
    share = CPU_KV_SHARE if device.type == "cpu" else accelerator_share
    return int(free_bytes(device) * share)


def release_cached(device: torch.device) -> None:
    """Gives memory that the allocator keeps for reuse back to the device."""
    if device.type != "cpu":
        _module(device.type).empty_cache()


def default_threads() -> int:
    """All cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(cores)))


def _count(kind: str) -> int:
    if kind == "npu":
        try:
            importlib.import_module("torch_npu")
        except ImportError:
            return 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = _module(kind)
    return int(module.device_count()) if module.is_available() else 0


def _module(kind: str) -> Any:
    return getattr(torch, kind)


def _quota_cores(cores: int) -> int:
    """Whole cores that a container may use."""
    for line in _lines(Path("/sys/fs/cgroup/cpu.max")):
        quota, _, period = line.partition(" ")
        if quota.isdigit() and period.isdigit():
            return math.ceil(int(quota) / int(period))
    return cores


def _free_host_bytes() -> int:
    """Memory that the machine, or the container, can still give."""
    page = os.sysconf("SC_PAGE_SIZE")
    free = page * os.sysconf("SC_PHYS_PAGES") // 2
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit = _lines(Path("/sys/fs/cgroup/memory.max"))
    used = _lines(Path("/sys/fs/cgroup/memory.current"))
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return max(free, 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
