"""What must be so before any test is imported."""

from __future__ import annotations

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    # Kernels for GPUs are interpreted. Triton asks when it is first imported, whoever does that.
    os.environ["TRITON_INTERPRET"] = "1"
