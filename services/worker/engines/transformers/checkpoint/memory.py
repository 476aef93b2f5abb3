"""Plans the memory of the KV cache: how many sequences of which length it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.mesh.errors import StartError

MIB = 1024 * 1024
_COMFORTABLE_SLOTS = 8


@dataclass(frozen=True)
class LayerShape:
    """What one layer keeps of each token."""

    layer: int
    kv_heads: int
    key_size: int
    value_size: int

    @property
    def values_per_token(self) -> int:
        """Numbers to store."""
        return self.kv_heads * (self.key_size + self.value_size)


@dataclass(frozen=True)
class MemoryPlan:
    """The KV cache: `slots` sequences of up to `context_length_tokens` each."""

    slots: int
    context_length_tokens: int
    token_bytes: int

    @property
    def total_tokens(self) -> int:
        """Tokens that fit, all slots together."""
        return self.slots * self.context_length_tokens

    @property
    def total_bytes(self) -> int:
        """Size of the cache."""
        return self.total_tokens * self.token_bytes

    def table(self, device: str, weight_bytes: int) -> str:
        """The plan for the log."""
        heads = ("device", "weights", "KV cache", "slots", "tokens a slot", "bytes a token")
        cells = (
            device,
            f"{weight_bytes / MIB:,.0f} MiB",
            f"{self.total_bytes / MIB:,.0f} MiB",
            f"{self.slots:,}",
            f"{self.context_length_tokens:,}",
            f"{self.token_bytes:,}",
        )
        widths = [max(map(len, column)) for column in zip(heads, cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (heads, cells)
        ]
        return "\n".join(lines)


def plan_memory(
    layers: Sequence[LayerShape],
    *,
    value_bytes: int,
    budget_bytes: int,
    max_running: int,
    model_context_tokens: int,
    context_length_tokens: int | None,
) -> MemoryPlan:
    """Divides the budget into slots of one context each.

    A context that was asked for is kept, at the cost of slots. The model's own is shortened where
    fewer than 8 slots of it (or max_running, if lower) would fit.

    Raises:
        StartError: not one slot of the context asked for fits, or it is longer than the model's.
    """
    token_bytes = value_bytes * sum(layer.values_per_token for layer in layers)
    budget_tokens = budget_bytes // token_bytes
    if context_length_tokens is None:
        comfortable = min(max_running, _COMFORTABLE_SLOTS)
        context = min(model_context_tokens, budget_tokens // comfortable)
    else:
        context = context_length_tokens
        if context > model_context_tokens:
            raise StartError(
                f"context_length_tokens is {context:,}: this model was made for "
                f"{model_context_tokens:,} at most"
            )
    slots = min(max_running, budget_tokens // context) if context else 0
    if slots < 1:
        need = context_length_tokens or 1
        raise StartError(
            f"the KV cache needs {need * token_bytes / MIB:,.0f} MiB for {need:,} tokens, and may "
            f"take {budget_bytes / MIB:,.0f} MiB: lower context_length_tokens or raise "
            "kv_memory_bytes"
        )
    return MemoryPlan(slots, context, token_bytes)
