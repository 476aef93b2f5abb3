"""Names blocks of tokens by what they hold and all that comes before: the prefix cache's keys.

A block's keys and values depend on every token up to its end, so a block's hash covers the hash of
the block before it, back to a root that stands for the weights. Two blocks with one hash hold the
same; a cryptographic hash is used because a collision would answer one client from another's text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as Rows

from services.worker.engines.transformers.scheduling.sequence import Sequence

_HASH_BYTES = 16
_INT64 = "q"


def root_hash(*parts: str) -> bytes:
    """What all chains over the same weights begin with: revision, quantization and the like."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def chained_hash(parent: bytes, token_ids: Rows[int]) -> bytes:
    """The hash of a block behind the block with the hash `parent`."""
    content = parent + array(_INT64, token_ids).tobytes()
    return hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()


class BlockHashes:
    """The hashes of sequences' full blocks. Each is computed once, when it is first asked for.

    Args:
        root: stands for the weights; see `root_hash`.
        block_tokens: tokens of one block.
    """

    def __init__(self, root: bytes, block_tokens: int) -> None:
        self._root = root
        self._block_tokens = block_tokens

    def of(self, sequence: Sequence, index: int) -> bytes:
        """The hash of a sequence's block. All tokens of the block must be known."""
        request = sequence.request
        prompt_blocks = len(request.prompt_ids) // self._block_tokens
        if index < prompt_blocks:
            return self._upto(sequence, request.prompt_hashes, 0, index)
        return self._upto(sequence, sequence.output_hashes, prompt_blocks, index)

    def _upto(self, sequence: Sequence, known: list[bytes], first: int, index: int) -> bytes:
        """Extends `known`, the hashes from block `first` on, as far as block `index`."""
        size = self._block_tokens
        for block in range(first + len(known), index + 1):
            parent = known[-1] if known else self._before(sequence, block)
            token_ids = sequence.token_ids(block * size, (block + 1) * size)
            known.append(chained_hash(parent, token_ids))
        return known[index - first]

    def _before(self, sequence: Sequence, block: int) -> bytes:
        if block:
            return self.of(sequence, block - 1)
        return root_hash(self._root.hex(), sequence.request.adapter)
