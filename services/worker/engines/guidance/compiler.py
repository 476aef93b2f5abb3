"""Compiles forms for one model's vocabulary, and keeps what was compiled."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from services.mesh.errors import InternalError, InvalidRequestError
from services.worker.engines.constraints import (
    BatchWords,
    CompilerCounters,
    TokenConstraint,
    Vocabulary,
    words_for,
)
from services.worker.engines.forms import Form, nodes, size_bytes
from services.worker.engines.guidance.grammar import write_grammar
from services.worker.engines.guidance.matcher import GuidanceConstraint
from services.worker.engines.guidance.refusals import (
    MAX_FORM_BYTES,
    refusal,
    too_large,
    unsatisfiable,
)
from services.worker.engines.guidance.trial import TrialError, Trials

CACHED_FORMS = 128
"""Compiled forms that are kept: some 10 to 100 KiB each."""

_LIMITS: Mapping[str, Any] = {
    # A state takes about 2 KiB, and each output has its own.
    "max_lexer_states": 20_000,
    # Milliseconds for a token, in an object of a thousand properties that may all be missing.
    "max_items_in_row": 5_000,
}


class GuidanceCompiler:
    """See services.worker.engines.constraints.ConstraintCompiler. Any thread may call it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._marker_ids = vocabulary.marker_ids
        self._tokenizer = _tokenizer(vocabulary)
        self._trials = Trials(self._tokenizer.vocab_size, _LIMITS)
        self._executor = LLExecutor()
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Form, Future[LLMatcher]] = OrderedDict()
        self._counters = CompilerCounters()

    def counters(self) -> CompilerCounters:
        """What it has done so far."""
        return self._counters

    def close(self) -> None:
        """Ends the processes that try forms. Nothing new is compiled any more."""
        self._trials.close()

    def is_compiled(self, form: Form) -> bool:
        """Whether compiling takes no time."""
        with self._lock:
            compiled = self._compiled.get(form)
        return compiled is not None and compiled.done()

    def compile(self, form: Form) -> TokenConstraint:
        """A constraint at the start of an output. What compiles a form already is waited for."""
        with self._lock:
            compiled = self._compiled.get(form)
            is_new = compiled is None
            if compiled is None:
                compiled = self._compiled[form] = Future()
                while len(self._compiled) > CACHED_FORMS:
                    self._compiled.popitem(last=False)
            else:
                self._compiled.move_to_end(form)
                self._counters.cache_hits += 1
        if is_new:
            try:
                compiled.set_result(self._make(form))
            except BaseException as error:
                with self._lock:
                    if self._compiled.get(form) is compiled:
                        del self._compiled[form]
                compiled.set_exception(error)
        return GuidanceConstraint(compiled.result().deep_copy())

    def fill(self, constraints: Sequence[TokenConstraint], words: BatchWords) -> None:
        """Fills a row of words for each constraint, on several cores where that helps."""
        began_s = time.perf_counter()
        own = cast("Sequence[GuidanceConstraint]", constraints)
        matchers = [(each.matcher, row) for row, each in enumerate(own)]
        self._executor.unsafe_compute_mask_ptr(
            matchers, words.ctypes.data, words.shape[1] * words.itemsize, len(words)
        )
        for row, each in enumerate(own):
            if each.matcher.is_error():
                words[row] = 0
        self._counters.masks += len(own)
        self._counters.mask_s += time.perf_counter() - began_s

    def _make(self, form: Form) -> LLMatcher:
        began_s = time.perf_counter()
        size = size_bytes(form)
        if size > MAX_FORM_BYTES:
            raise too_large(form, size)
        matcher = self._matcher(form)
        said = _fault(matcher)
        if said:
            raise self._blame(form, said)
        # The first mask shows what cannot begin. It warms what all copies begin with, too.
        words = np.zeros(words_for(self._tokenizer.vocab_size), dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        said = _fault(matcher)
        if not words.any() or (matcher.is_stopped() and not matcher.is_accepting()):
            raise unsatisfiable(form)
        if said:
            raise refusal(form, said)
        with self._lock:
            self._counters.compiled += 1
            self._counters.compile_s += time.perf_counter() - began_s
        return matcher

    def _matcher(self, form: Form) -> LLMatcher:
        try:
            grammar = write_grammar(form, self._marker_ids)
            self._trials.run(grammar)
            limits = LLParserLimits(**_LIMITS, verbose_errors=False)
            return LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        except TrialError as error:
            raise refusal(form, str(error)) from error
        except UnicodeEncodeError as error:
            said = "it holds half of a surrogate pair, which is no character"
            raise refusal(form, said) from error

    def _blame(self, form: Form, said: str) -> InvalidRequestError:
        """The error of the part at fault, if one is at fault by itself."""
        for part in nodes(form):
            if part is not form:
                fault = _fault(self._matcher(part))
                if fault:
                    return self._blame(part, fault)
        return refusal(form, said)


def make_compiler(vocabulary: Vocabulary) -> GuidanceCompiler:
    """As an engine's settings name it."""
    return GuidanceCompiler(vocabulary)


def _fault(matcher: LLMatcher) -> str:
    return matcher.get_error() if matcher.is_error() else ""


class _Tokens:
    """The vocabulary as the library asks for it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = list(vocabulary.token_bytes)
        self.special_token_ids = sorted(vocabulary.special_ids | vocabulary.end_ids)
        self.end_ids = sorted(vocabulary.end_ids)
        if not self.end_ids:
            # The library wants one. Nobody can choose this.
            self.end_ids = [len(self.tokens)]
            self.special_token_ids.append(len(self.tokens))
            self.tokens.append(b"")
        self.eos_token_id = self.end_ids[0]

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text that must come, which nobody asks for: see the grammar's options."""
        raise InternalError("llguidance forces tokens, which the grammar tells it not to")


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    tokens = _Tokens(vocabulary)
    # It asks for these attributes only, not for the class.
    wrapper = cast("TokenizerWrapper", tokens)
    return LLTokenizer(wrapper, n_vocab=len(tokens.tokens), eos_token=tokens.end_ids)
