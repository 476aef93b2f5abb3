"""Constrained decoding as engines see it: what says which tokens an output may go on with.

No library for it is chosen here. One joins by a ConstraintCompiler, whose constraints fill the
packed bitmasks that xgrammar and llguidance make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.worker.engines.base import Constraint

Words = npt.NDArray[np.int32]
"""Bit b of word w stands for token 32 w + b, from the least significant bit on."""


def words_for(vocabulary_size: int) -> int:
    """How many words hold a bit for each token."""
    return -(-vocabulary_size // 32)


class TokenConstraint(Protocol):
    """Where one output stands in the form that it must have: a function of its token ids."""

    def fill_allowed(self, words: Words) -> None:
        """Sets the bits of the tokens that may come next, and clears all others.

        Where the output may end here, the model's end-of-sequence tokens are among them.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Takes the output's next token."""
        ...

    def rebuild(self, output_ids: Sequence[int]) -> None:
        """Stands as if made anew and given these tokens."""
        ...


class ConstraintCompiler(Protocol):
    """Makes constraints for one model's vocabulary."""

    def compile(self, constraint: Constraint) -> TokenConstraint:
        """A constraint at the start of an output.

        Raises:
            InvalidRequestError: the schema, expression or grammar is wrong.
        """
        ...
