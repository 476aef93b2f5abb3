"""Durations as OpenAI's response headers write them. Pure."""

from __future__ import annotations

import math


def duration_text(duration_s: float) -> str:
    """Such as "120ms", "7.66s", "6m0s" or "1h2m3s"; rounded up, so that so long is enough."""
    if duration_s < 1:
        return f"{math.ceil(duration_s * 1000)}ms"
    if duration_s < 60:
        return f"{math.ceil(duration_s * 100) / 100:g}s"
    minutes, seconds = divmod(math.ceil(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"
