"""Tokens per second between two looks at a counter."""

from __future__ import annotations


class Throughput:
    """Remembers the last look. Time is handed in, in seconds."""

    def __init__(self, total_tokens: int, now_s: float) -> None:
        self._total_tokens = total_tokens
        self._seen_s = now_s

    def tokens_per_second(self, total_tokens: int, now_s: float) -> float:
        """The rate since the last look; 0 when no time has passed."""
        elapsed_s = now_s - self._seen_s
        gained = total_tokens - self._total_tokens
        self._total_tokens = total_tokens
        self._seen_s = now_s
        return gained / elapsed_s if elapsed_s > 0 else 0.0
