"""How the threads that compute wait for each other. Set before torch is loaded, which reads it."""

from __future__ import annotations

import os

_SPINS = 5000
"""Turns of a loop. A step is hundreds of parallel regions with microseconds between them, which
threads that sleep at once pay for each time. Threads that spin for long, as is OpenMP's default,
take the core that the event loop, the gateway or Envoy wants, and then each region waits for a turn
of the operating system's scheduler. See docs/adr/0011-threads-and-waiting.md."""


def bound_spinning() -> None:
    """Lets OpenMP's threads spin briefly, then sleep. What the environment says goes before."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
