"""When a device is done."""

from __future__ import annotations

import time

import torch


def now_s(device: torch.device) -> float:
    """The time when the device has computed all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
