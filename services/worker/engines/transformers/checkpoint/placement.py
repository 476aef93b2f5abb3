"""Decides which devices hold the weights, and how much of each: FastChat's policy.

Several accelerators fill one after the other, each up to 85 % of its free memory, so that unequal
ones can work together; then host memory, where that is allowed, then the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings

WEIGHT_SHARE = 0.85
"""Of a device's free memory, where other memory can take the rest of the weights."""

CPU, DISK = "cpu", "disk"
_MIB, _GIB = 1024**2, 1024**3


@dataclass(frozen=True)
class FreeMemory:
    """What can still be taken, in bytes."""

    accelerators: Mapping[str, int]
    """Of each accelerator of the chosen kind, by name ("cuda:0"), in the order of the indexes.
    Empty where the device is a CPU."""
    host: int


@dataclass(frozen=True)
class Placement:
    """Where the weights go."""

    device: str
    """Where inputs and outputs are; the one that runs what is kept in host memory or on disk."""
    limits: Mapping[str, int]
    """Bytes that the weights may take of each device, in the order in which they fill; empty where
    all go to `device`. What exceeds them goes to the disk."""
    offload_folder: Path | None = None

    @property
    def is_spread(self) -> bool:
        """Whether the weights may lie on more than one device."""
        return bool(self.limits)


def place_weights(
    device: str, weight_bytes: int | None, free: FreeMemory, settings: EngineSettings
) -> Placement:
    """Decides where the weights go.

    Args:
        device: the chosen device, such as "cpu" or "cuda:0".
        weight_bytes: size of the weights as they will be in memory, where it is known.
        free: memory of the devices.
        settings: the flags; see EngineSettings for each.

    Raises:
        StartError: the weights do not fit, or a flag asks for what the machine does not have.
    """
    if not free.accelerators:
        return _on_host(device, weight_bytes, free, settings)
    names = _chosen(device, list(free.accelerators), settings)
    may_overflow = settings.cpu_offload or settings.offload_folder is not None
    is_shared = len(names) > 1 or may_overflow
    limits = {name: _limit(free.accelerators[name], settings, is_shared) for name in names}
    if weight_bytes is not None and weight_bytes <= limits[names[0]]:
        return Placement(names[0], {})
    if settings.cpu_offload:
        limits[CPU] = settings.max_cpu_memory_bytes or int(free.host * WEIGHT_SHARE)
    takes_all = settings.offload_folder is not None or weight_bytes is None
    if not takes_all and sum(limits.values()) < (weight_bytes or 0):
        raise _does_not_fit(weight_bytes or 0, limits, free, settings)
    if not is_shared:
        return Placement(names[0], {})
    return Placement(names[0], limits, settings.offload_folder)


def memory_table(free: FreeMemory, placement: Placement, weights: Mapping[str, int]) -> str:
    """What each device had free, what its weights may take, and what they do take."""
    heads = ("device", "free before", "weights may take", "weights take")
    rows: list[Sequence[str]] = [heads]
    for name in dict.fromkeys((*placement.limits, *weights)):
        before = free.host if name == CPU else free.accelerators.get(name)
        limit = placement.limits.get(name)
        rows.append((name, *(_size(each) for each in (before, limit, weights.get(name, 0)))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _on_host(
    device: str, weight_bytes: int | None, free: FreeMemory, settings: EngineSettings
) -> Placement:
    for option, value in (
        ("--num-gpus", settings.num_gpus),
        ("--max-gpu-memory", settings.max_gpu_memory_bytes),
        ("--cpu-offload", settings.cpu_offload),
    ):
        if value:
            raise StartError(
                f"{option} is for accelerators, and the device is {device}: leave it out, or "
                "choose another --device"
            )
    spills = settings.offload_folder is not None
    limit = settings.max_cpu_memory_bytes or int(free.host * (WEIGHT_SHARE if spills else 1))
    if weight_bytes is None or weight_bytes <= limit:
        return Placement(device, {})
    if not spills:
        raise _does_not_fit(weight_bytes, {device: limit}, free, settings)
    return Placement(device, {CPU: limit}, settings.offload_folder)


def _chosen(device: str, names: Sequence[str], settings: EngineSettings) -> list[str]:
    """The accelerators that hold weights: the chosen one, or the first `num_gpus`."""
    kind = device.partition(":")[0]
    count = settings.num_gpus or max(1, len(settings.gpus))
    if count > len(names):
        asked = "--num-gpus" if settings.num_gpus else "--gpus"
        there = f"there is {len(names)}" if len(names) == 1 else f"there are {len(names)}"
        raise StartError(f"{asked} asks for {count} {kind} devices, and {there}")
    if count == 1:
        return [device]
    if ":" in settings.device:
        raise StartError(
            f"--device is {settings.device}, one device, and {count} are asked for: say "
            f"--device {kind}, and choose them with --gpus"
        )
    return list(names[:count])


def _limit(free_bytes: int, settings: EngineSettings, is_shared: bool) -> int:
    if settings.max_gpu_memory_bytes is not None:
        return min(settings.max_gpu_memory_bytes, free_bytes)
    return int(free_bytes * WEIGHT_SHARE) if is_shared else free_bytes


def _does_not_fit(
    weight_bytes: int, limits: Mapping[str, int], free: FreeMemory, settings: EngineSettings
) -> StartError:
    where = ", ".join(f"{name} {_size(limit)}" for name, limit in limits.items())
    ways = []
    if free.accelerators:
        if len(limits) < len(free.accelerators):
            ways.append("--num-gpus")
        if not settings.cpu_offload:
            ways.append("--cpu-offload")
    if settings.quantization is None:
        ways.append("--load-8bit or --load-4bit")
    ways.append("--offload-folder")
    return StartError(
        f"the weights take {_size(weight_bytes)}, and may take {where}: try {', '.join(ways)}"
    )


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return ""
    if size_bytes < _GIB:
        return f"{size_bytes / _MIB:,.1f} MiB"
    return f"{size_bytes / _GIB:,.1f} GiB"
