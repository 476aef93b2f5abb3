"""The blocks of the KV cache: who holds which, and which are kept for their content."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Rows


class OutOfBlocksError(Exception):
    """More blocks were asked for than are available."""


class BlockPool:
    """Blocks by number, with reference counts and a prefix cache.

    A block is *used* while a table refers to it. A used block can be *sealed* under the hash of
    its content; then others share it. A sealed block without references stays *cached* until its
    place is needed, the least recently used first; any other block without references is *free*.

    Args:
        blocks: how many there are.
        block_tokens: tokens that each holds.
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._references = [0] * blocks
        self._hashes: list[bytes | None] = [None] * blocks
        self._sealed: dict[bytes, int] = {}
        # Taken from the end, so that low numbers, whose memory is in use already, go first.
        self._free = list(range(blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def available_blocks(self) -> int:
        """Blocks that `allocate` could hand out: free ones, and cached ones that would be lost."""
        return len(self._free) + len(self._cached)

    @property
    def used_blocks(self) -> int:
        """Blocks in tables."""
        return self.blocks - self.available_blocks

    @property
    def cached_blocks(self) -> int:
        """Blocks kept only for their content."""
        return len(self._cached)

    @property
    def free_blocks(self) -> int:
        """Blocks without content."""
        return len(self._free)

    def references(self, block: int) -> int:
        """How many tables refer to a block."""
        return self._references[block]

    def match(self, hashes: Iterable[bytes]) -> list[int]:
        """The blocks under the first of these hashes, up to the first hash that is not known."""
        blocks = []
        for each in hashes:
            block = self._sealed.get(each)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def share(self, blocks: Rows[int]) -> None:
        """Refers once more to blocks that `match` has found."""
        for block in blocks:
            if not self._references[block]:
                del self._cached[block]
            self._references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Hands out blocks, each referred to once; their content is undefined.

        Raises:
            OutOfBlocksError: fewer are available. Nothing is handed out then.
        """
        if count > self.available_blocks:
            raise OutOfBlocksError(f"{count} blocks wanted, {self.available_blocks} available")
        return [self._take() for _ in range(count)]

    def release(self, table: Rows[int]) -> None:
        """Takes back one reference to each block of a sequence's table.

        The table's tail comes to lie before its head in the order of eviction: a block is of no
        use without those before it, and those before it may be shared by more.
        """
        for block in reversed(table):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._hashes[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def seal(self, block: int, content_hash: bytes) -> None:
        """Keeps a used block, full and computed, for whoever looks for its content.

        Where another block holds the same content already, that one stays the one to be found.
        """
        if self._hashes[block] is None and content_hash not in self._sealed:
            self._hashes[block] = content_hash
            self._sealed[content_hash] = block

    def forget(self, blocks: Iterable[int]) -> None:
        """Lets nobody find these blocks any more. References to them stay."""
        for block in blocks:
            self._unseal(block)
            if block in self._cached:
                del self._cached[block]
                self._free.append(block)

    def _take(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            self._unseal(block)
        self._references[block] = 1
        return block

    def _unseal(self, block: int) -> None:
        content_hash = self._hashes[block]
        if content_hash is not None:
            del self._sealed[content_hash]
            self._hashes[block] = None
