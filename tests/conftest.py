"""What must be so before any test is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HAS_GPU = Path("/dev/nvidiactl").exists()

if not HAS_GPU:
    # Kernels for GPUs are interpreted. Triton asks when it is first imported, whoever does that.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a GPU where there is none."""
    if HAS_GPU:
        return
    needing = [item for item in items if item.get_closest_marker("gpu")]
    items[:] = [item for item in items if not item.get_closest_marker("gpu")]
    if needing:
        config.hook.pytest_deselected(items=needing)
