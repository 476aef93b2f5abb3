"""Keys for the leading chunks of a prompt. A gateway has no tokenizer, so chunks are of bytes.

Each key stands for a prefix: two prompts share a key exactly where they share the prefix. A chunk
that a prompt does not have whole gets no key.
"""

from __future__ import annotations

from hashlib import blake2b

LEADING_BYTES = (1024, 4096, 16_384)
"""Ends of the prefixes that have a key. 1 KiB is some 250 tokens: less is computed so soon
that keeping it together is not worth a queue."""

MAX_HEAD_BYTES = 65_536
"""What a prompt has in common with others beyond this does not tell where it goes."""


def prefix_keys(head: bytes, *, is_whole: bool) -> tuple[int, ...]:
    """64-bit keys of the prefixes, shortest first; at least one.

    Args:
        head: the prompt's first bytes. What is beyond MAX_HEAD_BYTES does not count.
        is_whole: the head will be the same in all later turns of the conversation, so that its end
            is a place for a key as well. Without, it may have grown the next time.
    """
    head = head[:MAX_HEAD_BYTES]
    ends = [end for end in LEADING_BYTES if end <= len(head)]
    if is_whole or not ends:
        ends.append(len(head))
    hashed = blake2b(digest_size=8)
    keys: list[int] = []
    begin = 0
    for end in ends:
        if end == begin and keys:
            continue
        hashed.update(head[begin:end])
        keys.append(int.from_bytes(hashed.digest()))
        begin = end
    return tuple(keys)
