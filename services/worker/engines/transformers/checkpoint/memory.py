"""Plans the memory of the KV cache: how many blocks it has, and what fits in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.mesh.errors import StartError

MIB = 1024 * 1024

BLOCK_TOKENS = 32
"""Tokens of one block. CPU kernels read blocks of 32 as fast as one long row, and smaller ones
slower; larger ones waste more behind each sequence's end and share less of common prompts."""


@dataclass(frozen=True)
class LayerShape:
    """What one layer keeps of each token."""

    layer: int
    kv_heads: int
    key_size: int
    value_size: int
    window: int | None = None
    """Tokens that each token sees, itself included. None: all before it."""

    @property
    def values_per_token(self) -> int:
        """Numbers to store."""
        return self.kv_heads * (self.key_size + self.value_size)


@dataclass(frozen=True)
class MemoryPlan:
    """The KV cache: `blocks` blocks, which up to `slots` sequences share.

    Each sequence has up to `context_length_tokens`. One such fits alone; how many do at once is
    told by `full_contexts`.
    """

    slots: int
    context_length_tokens: int
    token_bytes: int
    blocks: int
    block_tokens: int = BLOCK_TOKENS

    @property
    def total_tokens(self) -> int:
        """Tokens that fit, all blocks together."""
        return self.blocks * self.block_tokens

    @property
    def total_bytes(self) -> int:
        """Size of the cache."""
        return self.total_tokens * self.token_bytes

    @property
    def full_contexts(self) -> float:
        """Sequences of the longest kind that fit at once."""
        return self.blocks / -(-self.context_length_tokens // self.block_tokens)

    def table(self, device: str, weight_bytes: int) -> str:
        """The plan for the log."""
        columns = {
            "device": device,
            "weights": f"{weight_bytes / MIB:,.0f} MiB",
            "KV cache": f"{self.total_bytes / MIB:,.0f} MiB",
            "KV blocks": f"{self.blocks:,}",
            "tokens a block": f"{self.block_tokens:,}",
            "tokens that fit": f"{self.total_tokens:,}",
            "context tokens": f"{self.context_length_tokens:,}",
            "full contexts at once": f"{self.full_contexts:,.1f}",
        }
        widths = [max(len(head), len(cell)) for head, cell in columns.items()]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (columns.keys(), columns.values())
        )


def plan_memory(
    layers: Sequence[LayerShape],
    *,
    value_bytes: int,
    budget_bytes: int,
    max_running: int,
    model_context_tokens: int,
    context_length_tokens: int | None,
) -> MemoryPlan:
    """Divides the budget into blocks: as many as fit, and no more than all sequences can fill.

    A context that was asked for is kept. The model's own is shortened where all blocks together
    hold less.

    Raises:
        StartError: the context asked for does not fit, it is longer than the model's, or there is
            no room for one block.
    """
    token_bytes = value_bytes * sum(layer.values_per_token for layer in layers)
    context = context_length_tokens or model_context_tokens
    if context > model_context_tokens:
        raise StartError(
            f"context_length_tokens is {context:,}: this model was made for "
            f"{model_context_tokens:,} at most"
        )
    blocks = min(
        budget_bytes // (token_bytes * BLOCK_TOKENS), max_running * -(-context // BLOCK_TOKENS)
    )
    fitting = blocks * BLOCK_TOKENS
    if context_length_tokens is None:
        context = min(context, fitting)
    if blocks < 1 or context > fitting:
        need = -(-(context_length_tokens or 1) // BLOCK_TOKENS) * BLOCK_TOKENS
        raise StartError(
            f"the KV cache needs {need * token_bytes / MIB:,.2f} MiB for {need:,} tokens, and may "
            f"take {budget_bytes / MIB:,.2f} MiB: lower --context-length or raise "
            "--kv-cache-memory"
        )
    return MemoryPlan(max_running, context, token_bytes, blocks)
