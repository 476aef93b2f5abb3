"""How the KV cache's memory becomes blocks, and what fits in them."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.memory import (
    BLOCK_TOKENS,
    LayerShape,
    MemoryPlan,
    plan_memory,
)

LAYERS = [LayerShape(layer, kv_heads=2, key_size=8, value_size=8) for layer in range(4)]
TOKEN_BYTES = 4 * 2 * 16 * 4


def plan(budget_tokens: int, **changes: Any) -> MemoryPlan:
    arguments: dict[str, Any] = {
        "max_running": 32,
        "model_context_tokens": 1000,
        "context_length_tokens": None,
    }
    return plan_memory(
        LAYERS, value_bytes=4, budget_bytes=budget_tokens * TOKEN_BYTES, **arguments | changes
    )


class TestMemoryPlan:
    def test_no_more_is_taken_than_all_sequences_can_fill(self) -> None:
        made = plan(10**6)
        assert made == MemoryPlan(32, 1000, TOKEN_BYTES, blocks=32 * 32)
        assert made.total_tokens == 32 * 32 * BLOCK_TOKENS
        assert made.total_bytes == made.total_tokens * TOKEN_BYTES
        assert made.full_contexts == 32

    def test_less_memory_has_fewer_blocks_for_as_many_sequences(self) -> None:
        assert plan(20_000) == MemoryPlan(32, 1000, TOKEN_BYTES, blocks=20_000 // BLOCK_TOKENS)
        assert plan(20_000).full_contexts == pytest.approx(19.5, abs=0.1)

    def test_the_context_is_what_all_blocks_hold_at_most(self) -> None:
        assert plan(500) == MemoryPlan(32, 480, TOKEN_BYTES, blocks=15)
        assert plan(500).full_contexts == 1

    def test_a_context_that_was_asked_for_is_kept(self) -> None:
        assert plan(2000, context_length_tokens=900) == MemoryPlan(32, 900, TOKEN_BYTES, blocks=62)
        with pytest.raises(StartError, match=r"for 928 tokens.* lower --context-length"):
            plan(800, context_length_tokens=900)

    def test_a_context_beyond_the_models_is_refused(self) -> None:
        with pytest.raises(StartError, match="made for 1,000"):
            plan(10**6, context_length_tokens=1001)

    @pytest.mark.parametrize("budget_tokens", [-100, 0, BLOCK_TOKENS - 1])
    def test_less_than_a_block_is_too_little(self, budget_tokens: int) -> None:
        with pytest.raises(StartError, match="for 32 tokens"):
            plan(budget_tokens)

    def test_the_table_has_the_figures_under_their_names(self) -> None:
        head, row = plan(20_000).table("cpu", 3 * 1024 * 1024).splitlines()
        assert head.split("  ")[0].strip() == "device"
        assert len(head) == len(row)
        assert row.split()[:3] == ["cpu", "3", "MiB"]
        assert row.split()[-5:] == ["625", "32", "20,000", "1,000", "19.5"]
