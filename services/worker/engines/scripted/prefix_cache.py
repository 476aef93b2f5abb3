"""Which prompt tokens a real engine would have in its prefix cache.

It counts as the transformers engine does: in whole blocks, each known by all that comes before it,
least recently used first to go, and never the last token, which must be computed to go on from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

BLOCK_TOKENS = 16


class PrefixCache:
    """Blocks without tokens: their hashes are enough to know what would be found."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Blocks that are kept."""
        return len(self._blocks)

    def match(self, token_ids: Sequence[int]) -> int:
        """How many of the first tokens need not be computed."""
        matched = 0
        for block in _hashes(token_ids[:-1]):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            matched += BLOCK_TOKENS
        return matched

    def keep(self, token_ids: Sequence[int]) -> None:
        """Keeps the whole blocks of a computed sequence; its beginning goes last."""
        for block in reversed(list(_hashes(token_ids))):
            self._blocks[block] = None
            self._blocks.move_to_end(block)

    def shrink(self, tokens: int) -> None:
        """Drops what does not fit in so many tokens."""
        while len(self._blocks) * BLOCK_TOKENS > max(0, tokens):
            self._blocks.popitem(last=False)


def _hashes(token_ids: Sequence[int]) -> Iterator[int]:
    """Of each whole block, and all before it."""
    chained = 0
    for end in range(BLOCK_TOKENS, len(token_ids) + 1, BLOCK_TOKENS):
        chained = hash((chained, *token_ids[end - BLOCK_TOKENS : end]))
        yield chained
