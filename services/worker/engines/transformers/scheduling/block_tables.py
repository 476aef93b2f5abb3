"""Gives sequences their blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Rows

from services.worker.engines.transformers.scheduling.block_hash import BlockHashes
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from services.worker.engines.transformers.scheduling.sequence import Sequence


class BlockTables:
    """Fills, shares and empties the block tables of sequences.

    Args:
        pool: the blocks.
        hashes: name their content. None: nothing is shared or kept.
    """

    def __init__(self, pool: BlockPool, hashes: BlockHashes | None) -> None:
        self._pool = pool
        self._hashes = hashes
        self._block_tokens = pool.block_tokens

    def lacking(self, sequence: Sequence, tokens: int) -> int:
        """Blocks to add before its next `tokens` tokens can be computed."""
        end = sequence.computed_tokens + tokens
        return max(0, -(-end // self._block_tokens) - len(sequence.blocks))

    def room_tokens(self, sequence: Sequence) -> int:
        """Tokens that could be computed next if it got every block that is available."""
        blocks = len(sequence.blocks) + self._pool.available_blocks
        return blocks * self._block_tokens - sequence.computed_tokens

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Adds what its next `tokens` tokens lack.

        Raises:
            OutOfBlocksError: that many blocks are not available.
        """
        lacking = self.lacking(sequence, tokens)
        if lacking:
            sequence.blocks += self._pool.allocate(lacking)

    def match(self, sequence: Sequence) -> list[int]:
        """Blocks that hold its first tokens already; never all of them, as one must be computed
        to sample from.
        """
        hashes = self._hashes
        if hashes is None or sequence.scores_prompt:
            return []
        blocks = range((sequence.total_tokens - 1) // self._block_tokens)
        return self._pool.match(hashes.of(sequence, index) for index in blocks)

    def is_being_computed(self, sequence: Sequence, index: int, by: Iterable[Sequence]) -> bool:
        """Whether another sequence is about to compute what its block `index` will hold."""
        hashes = self._hashes
        if hashes is None or index >= (sequence.total_tokens - 1) // self._block_tokens:
            return False
        wanted = hashes.of(sequence, index)
        size = self._block_tokens
        return any(
            other.computed_tokens // size <= index < other.total_tokens // size
            and hashes.of(other, index) == wanted
            for other in by
        )

    def start(self, sequence: Sequence, matched: list[int]) -> None:
        """Begins its table with blocks that `match` has found."""
        self._pool.share(matched)
        sequence.blocks = matched
        sequence.sealed_blocks = len(matched)
        sequence.computed_tokens = len(matched) * self._block_tokens

    def seal(self, sequence: Sequence) -> None:
        """Shows the blocks that have become full to the prefix cache."""
        if self._hashes is None:
            return
        full = sequence.computed_tokens // self._block_tokens
        for index in range(sequence.sealed_blocks, full):
            self._pool.seal(sequence.blocks[index], self._hashes.of(sequence, index))
        sequence.sealed_blocks = full

    def empty(self, sequence: Sequence) -> None:
        """Gives all its blocks back; it is as if never computed."""
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.sealed_blocks = 0
        sequence.computed_tokens = 0

    def discard(self, sequence: Sequence) -> list[int]:
        """Gives all its blocks back, and lets nobody find what they hold.

        Returns:
            Those that nobody else uses.
        """
        blocks = sequence.blocks
        self._pool.forget(blocks)
        self.empty(sequence)
        return [block for block in blocks if not self._pool.references(block)]

    def available_beside(self, matched: Rows[int], victims: Rows[Sequence]) -> int:
        """Blocks that could be handed out to who keeps those matched and preempts the victims."""
        held = Counter(block for victim in victims for block in victim.blocks)
        kept = set(matched)
        gained = sum(
            count == self._pool.references(block) and block not in kept
            for block, count in held.items()
        )
        lost = sum(not self._pool.references(block) for block in matched)
        return self._pool.available_blocks + gained - lost
