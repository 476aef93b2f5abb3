"""The libraries behind one interface: compile a form, then mask and accept token by token."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.constraints.cases import Case
from services.worker.engines.constraints import Vocabulary, words_for

XGRAMMAR_FOLDER = Path(".peers/xgrammar-packages")
XGRAMMAR = ("xgrammar==0.2.9", "apache-tvm-ffi==0.1.15.post2")
"""Installed without what they require besides, which is here: torch, transformers and numpy."""


class Walk(Protocol):
    """One output's way through a form."""

    def mask(self) -> None:
        """Computes what may come next."""

    def accept(self, token_id: int) -> bool:
        """Takes a token. Whether it fits."""

    def may_end(self) -> bool:
        """Whether the form is complete."""


class Library(Protocol):
    """A library made ready for one vocabulary."""

    def compile(self, case: Case) -> Callable[[], Walk]:
        """Compiles a form, and makes walks through it.

        Raises:
            Exception: whatever the library says of a form that it cannot do.
        """


class _GuidanceWalk:
    def __init__(self, matcher: Any, words: npt.NDArray[np.int32]) -> None:
        self._matcher = matcher
        self._words = words

    def mask(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)

    def accept(self, token_id: int) -> bool:
        return bool(self._matcher.consume_token(token_id))

    def may_end(self) -> bool:
        return bool(self._matcher.is_accepting())


class Guidance:
    """llguidance, as the engine uses it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from services.worker.engines.guidance.compiler import GuidanceCompiler

        self._compiler = GuidanceCompiler(vocabulary)
        self._words = np.empty(words_for(len(vocabulary.token_bytes)), dtype=np.int32)

    def compile(self, case: Case) -> Callable[[], Walk]:
        from services.worker.engines.forms import Grammar, Json, Regex
        from services.worker.engines.guidance.matcher import GuidanceConstraint

        kinds = {"json_schema": Json, "regex": Regex, "ebnf": Grammar}
        form = kinds[case.kind](case.form)
        self._compiler.compile(form)

        def walk() -> Walk:
            constraint = self._compiler.compile(form)
            assert isinstance(constraint, GuidanceConstraint)
            return _GuidanceWalk(constraint.matcher, self._words)

        return walk


class _XgrammarWalk:
    def __init__(self, matcher: Any, bitmask: Any) -> None:
        self._matcher = matcher
        self._bitmask = bitmask

    def mask(self) -> None:
        self._matcher.fill_next_token_bitmask(self._bitmask)

    def accept(self, token_id: int) -> bool:
        return bool(self._matcher.accept_token(token_id))

    def may_end(self) -> bool:
        return bool(self._matcher.is_completed())


class Xgrammar:
    """xgrammar with its defaults, on one thread, and without its cache."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        sys.path.append(str(XGRAMMAR_FOLDER))
        import xgrammar

        self._xgrammar = xgrammar
        info = xgrammar.TokenizerInfo(
            list(vocabulary.token_bytes),
            vocab_type=xgrammar.VocabType.RAW,
            stop_token_ids=sorted(vocabulary.end_ids),
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._bitmask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def compile(self, case: Case) -> Callable[[], Walk]:
        kinds = {
            "json_schema": self._compiler.compile_json_schema,
            "regex": self._compiler.compile_regex,
            "ebnf": self._compiler.compile_grammar,
        }
        compiled = kinds[case.kind](case.form)
        return lambda: _XgrammarWalk(self._xgrammar.GrammarMatcher(compiled), self._bitmask)


LIBRARIES: dict[str, Callable[[Vocabulary], Library]] = {
    "llguidance": Guidance,
    "xgrammar": Xgrammar,
}
