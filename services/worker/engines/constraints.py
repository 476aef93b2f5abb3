"""Constrained decoding as engines see it: what says which tokens an output may go on with.

No library for it is chosen here. One joins by a function that makes a ConstraintCompiler of a
model's vocabulary, named in the engine's settings and imported only then; its constraints fill
packed bitmasks, as xgrammar and llguidance make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.mesh.errors import StartError
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


@dataclass(frozen=True)
class Vocabulary:
    """What a compiler is made for."""

    tokenizer: Any
    """The checkpoint's, as transformers loads it."""
    size: int
    """Logits of a position. May be more than the tokenizer has tokens."""
    end_ids: frozenset[int]
    """Tokens that end an output."""


def load_compiler(name: str | None, vocabulary: Vocabulary) -> ConstraintCompiler | None:
    """What "module:function" makes of a vocabulary; None for None.

    Raises:
        StartError: there is no such function, or a package that it needs is not installed.
    """
    if name is None:
        return None
    module_name, _, function = name.partition(":")
    if not module_name or not function.isidentifier():
        raise StartError(f"constraint_compiler is {name!r}: write module:function")
    try:
        make = getattr(import_module(module_name), function)
    except ModuleNotFoundError as error:
        raise StartError(
            f"constraint_compiler {name!r} needs the Python package {error.name!r}, which is not "
            "installed"
        ) from error
    except AttributeError as error:
        raise StartError(
            f"constraint_compiler is {name!r}: {module_name} has no {function}"
        ) from error
    compiler: ConstraintCompiler = make(vocabulary)
    return compiler
