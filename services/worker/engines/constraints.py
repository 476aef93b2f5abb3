"""Constrained decoding as engines see it: what says which tokens an output may go on with.

A library for it joins by a function that makes a ConstraintCompiler of a model's vocabulary, named
in the engine's settings and imported only then; its constraints fill packed bitmasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from services.mesh.errors import StartError
from services.worker.engines.forms import Form

Words: TypeAlias = npt.NDArray[np.int32]
"""Bit b of word w stands for token 32 w + b, from the least significant bit on."""
BatchWords: TypeAlias = npt.NDArray[np.int32]
"""`[rows, words]`, one row after the other in memory."""


def words_for(vocabulary_size: int) -> int:
    """How many words hold a bit for each token."""
    return -(-vocabulary_size // 32)


class TokenConstraint(Protocol):
    """Where one output stands in the form that it must have: a function of its token ids."""

    @property
    def is_complete(self) -> bool:
        """Whether the output has the form, and nothing can follow."""
        ...

    def fill_allowed(self, words: Words) -> None:
        """Sets the bits of the tokens that may come next, and clears all others.

        Where the output may end here, the model's end-of-sequence tokens are among them. None is
        set where the form has become too much for the library.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Takes the output's next token.

        Raises:
            InvalidRequestError: it may not come here.
        """
        ...

    def rebuild(self, output_ids: Sequence[int]) -> None:
        """Stands as if made anew and given these tokens."""
        ...


@dataclass
class CompilerCounters:
    """What a compiler has done since the start. One that is read may be a moment old."""

    compiled: int = 0
    compile_s: float = 0.0
    cache_hits: int = 0
    """Constraints whose form had been compiled before, or was being compiled."""
    masks: int = 0
    """Rows that were filled."""
    mask_s: float = 0.0


class ConstraintCompiler(Protocol):
    """Makes constraints for one model's vocabulary. Any thread may call it."""

    def compile(self, form: Form) -> TokenConstraint:
        """A constraint at the start of an output. May take seconds, without the interpreter's lock.

        Raises:
            InvalidRequestError: a schema, expression or grammar in it is wrong, is too large, or
                cannot be held to; the error names the field.
        """
        ...

    def is_compiled(self, form: Form) -> bool:
        """Whether compiling takes no time."""
        ...

    def fill(self, constraints: Sequence[TokenConstraint], words: BatchWords) -> None:
        """Has each constraint fill its row."""
        ...

    def close(self) -> None:
        """Gives up what it holds beside memory. Nothing new is compiled any more."""
        ...

    def counters(self) -> CompilerCounters:
        """What it has done so far."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """What a compiler is made for."""

    token_bytes: Sequence[bytes]
    """What each token adds to a text. Empty for ids that no token has."""
    special_ids: frozenset[int]
    """Tokens that are no text."""
    end_ids: frozenset[int]
    """Tokens that end an output."""
    marker_ids: Mapping[str, int] = field(default_factory=dict)
    """Texts that are tokens of their own, whatever stands around them."""


def fill_each(constraints: Sequence[TokenConstraint], words: BatchWords) -> None:
    """Fills one row after the other."""
    for constraint, row in zip(constraints, words, strict=True):
        constraint.fill_allowed(row)


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
            "installed: pip install 'tokenmesh[transformers]'"
        ) from error
    except AttributeError as error:
        raise StartError(
            f"constraint_compiler is {name!r}: {module_name} has no {function}"
        ) from error
    compiler: ConstraintCompiler = make(vocabulary)
    return compiler
