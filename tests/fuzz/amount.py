"""How much is tried: seconds in `make test`, as long as one likes by an environment variable."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("TOKENMESH_FUZZ_FACTOR", "1"))
"""Times as much as `make test` does."""


def seeds(count: int) -> range:
    """The seeds that a test is run with."""
    return range(count * FACTOR)
