"""How fast the scripted engine works, and how long it talks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Simulated costs. All zero is as fast as the machine goes."""

    prefill_s: float = 0.0
    """Seconds that a prompt costs, whatever its length."""
    prefill_token_s: float = 0.0
    """Seconds that each prompt token costs. Prompts are computed one after another, while decoding
    goes on."""
    token_interval_s: float = 0.0
    """Seconds between two steps. A step gives each running sequence one token."""
    answer_tokens: int = 128
    """Completion tokens of an answer, the end token included, where nothing else ends it. 0 talks
    on until max_tokens or the context length is reached."""

    def prefill_time_s(self, tokens: int) -> float:
        """Seconds to compute so many prompt tokens."""
        return self.prefill_s + self.prefill_token_s * tokens if tokens else 0.0
