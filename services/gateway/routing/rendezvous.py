"""Rendezvous hashing: which worker a key belongs to, without anyone keeping a table.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998). Every worker has a
score for a key, and the best one has it. So a worker that goes takes its own keys along and no
others move, one that comes takes its share from all, and every gateway finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter

from services.gateway.routing.base import Candidate

_BITS = 64
_MASK = (1 << _BITS) - 1


def ranked(key: int, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, best for the key first. A worker twice as fast is first twice as often.

    `key` has 64 bits. Ties, which are next to impossible, are broken by worker id.
    """
    return sorted(
        sorted(candidates, key=attrgetter("worker_id")),
        key=lambda each: _cost(key, each.worker_id, each.speed),
    )


def home(key: int, candidates: Sequence[Candidate]) -> Candidate:
    """The first of `ranked`."""
    return min(
        candidates, key=lambda each: (_cost(key, each.worker_id, each.speed), each.worker_id)
    )


def _cost(key: int, worker_id: str, speed: float) -> float:
    """Exponentially distributed with rate `speed`: the least of several is each one's in proportion
    to its speed (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005)."""
    uniform = (_mixed(key ^ _worker_bits(worker_id)) + 1) / (_MASK + 2)
    return -math.log(uniform) / speed


@lru_cache(maxsize=4096)
def _worker_bits(worker_id: str) -> int:
    return int.from_bytes(blake2b(worker_id.encode(), digest_size=_BITS // 8).digest())


def _mixed(bits: int) -> int:
    """The finalizer of SplitMix64 (Steele et al., 2014): each bit in moves half of those out."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
