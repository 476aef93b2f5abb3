"""Random numbers as a pure function of where they are used, so that requests can move and repeat.

Nothing is drawn from a generator whose state travels: a token comes out the same whether its
sequence runs alone, in a batch, or continues on another worker.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_UNIFORM_BITS = 23


def uniform(seed: int, choice_index: int, position: int) -> float:
    """The number in [0, 1) for output token `position` of a choice.

    It has 23 bits, so that it and its product with a float32 total stay exact and below it.
    """
    state = _mix(stream(seed, choice_index) ^ position)
    return (state >> (64 - _UNIFORM_BITS)) / (1 << _UNIFORM_BITS)


def stream(seed: int, choice_index: int) -> int:
    """What the numbers of one choice have in common, of 64 bits: see `uniforms`."""
    return _mix(_mix(seed & _MASK) ^ choice_index)


def uniforms(
    streams: npt.NDArray[np.uint64], positions: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float32]:
    """`uniform` for many choices at once, exactly."""
    state = (streams ^ positions) + np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    numbers = (state >> np.uint64(64 - _UNIFORM_BITS)).astype(np.float32)
    return numbers / np.float32(1 << _UNIFORM_BITS)


def _mix(state: int) -> int:
    """SplitMix64 (Steele, Lea and Flood, 2014): one step of its sequence, finalised."""
    state = (state + _GOLDEN) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
