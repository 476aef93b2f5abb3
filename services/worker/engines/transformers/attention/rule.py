"""How the attention of a layer weighs keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How a layer weighs keys.

    `scale` multiplies scores, which `softcap` then bounds. A query sees the last `window` keys, its
    own included, or all. `sinks`, one score per head, take part in the softmax and weigh nothing.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None
    sinks: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is what torch's scaled dot product attention computes under a mask."""
        return self.softcap is None and self.sinks is None

    def is_causal_for(self, tokens: int) -> bool:
        """Whether, over so many tokens, that mask hides nothing but what comes later."""
        return self.is_plain and (self.window is None or tokens <= self.window)
