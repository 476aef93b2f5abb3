"""Which accelerators this process sees: chosen by variables, before any library looks."""

from __future__ import annotations

from collections.abc import Sequence

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    # Of Intel's GPUs; the second is FastChat's.
    "ZE_AFFINITY_MASK",
    "XPU_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
)


def visible_device_variables(gpus: Sequence[str]) -> dict[str, str]:
    """Environment variables with which a process sees these accelerators only, in this order.

    They count from the moment a library first looks for devices. Empty for no choice: then what
    the environment says holds.
    """
    return dict.fromkeys(_VARIABLES, ",".join(gpus)) if gpus else {}
