"""Measures one library over one vocabulary, in a process of its own.

python -m benchmarks.constraints.walks LIBRARY VOCABULARY

prints JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.constraints.cases import CASES, KEYWORDS, RIGHT, WRONG, Case
from benchmarks.constraints.libraries import LIBRARIES, Library, Walk
from benchmarks.constraints.vocabularies import tokenizer_of
from services.worker.engines.constraints import Vocabulary
from services.worker.engines.transformers.text.token_texts import TokenTexts
from services.worker.engines.transformers.text.vocabulary import vocabulary_of

REPEATS = 5
SPIN_S = 0.5


def main(arguments: Sequence[str]) -> None:
    """Measures and prints."""
    name, vocabulary_name = arguments
    tokenizer = tokenizer_of(vocabulary_name)
    vocabulary = vocabulary_of(
        tokenizer,
        TokenTexts(tokenizer),
        size=len(tokenizer),
        end_ids=frozenset({tokenizer.eos_token_id}),
    )
    assert vocabulary is not None
    before_bytes = machine.memory_bytes(os.getpid())
    began_s = time.perf_counter()
    library = LIBRARIES[name](vocabulary)
    ready_s = time.perf_counter() - began_s
    cases = [_measure(library, case, tokenizer) for case in CASES]
    print(
        json.dumps(
            {
                "library": name,
                "vocabulary": vocabulary_name,
                "tokens": len(vocabulary.token_bytes),
                "ready_s": ready_s,
                "memory_bytes": machine.memory_bytes(os.getpid()) - before_bytes,
                "cases": cases,
                "keywords": _keywords(library, vocabulary),
                "interpreter_share": _interpreter_share(library, tokenizer),
            }
        )
    )


def _measure(library: Library, case: Case, tokenizer: Any) -> dict[str, Any]:
    token_ids = tokenizer(case.text, add_special_tokens=False)["input_ids"]
    compile_s, masks_s, accept_s = [], [], []
    try:
        for repeat in range(REPEATS):
            # Another form each time, for libraries that keep what they have compiled.
            changed = _changed(case, repeat)
            began_s = time.perf_counter()
            walk_of = library.compile(changed)
            compile_s.append(time.perf_counter() - began_s)
            walk = walk_of()
            for token_id in token_ids:
                began_s = time.perf_counter()
                walk.mask()
                masks_s.append(time.perf_counter() - began_s)
                began_s = time.perf_counter()
                fits = walk.accept(token_id)
                accept_s.append(time.perf_counter() - began_s)
                if not fits:
                    return {"case": case.name, "refused": "its text, which has the form"}
            if not walk.may_end():
                return {"case": case.name, "refused": "the end of its text"}
    except Exception as error:
        return {"case": case.name, "refused": str(error).splitlines()[0][:200]}
    return {
        "case": case.name,
        "tokens": len(token_ids),
        "compile_s": statistics.median(compile_s),
        "mask_s": masks_s,
        "accept_s": statistics.median(accept_s),
    }


def _changed(case: Case, repeat: int) -> Case:
    if case.kind == "json_schema":
        form = json.dumps({"description": f"{repeat}", **json.loads(case.form)})
    else:
        form = case.form + ("\n" * repeat if case.kind == "ebnf" else f"|x{{{repeat + 2}}}")
    return Case(case.name, case.kind, form, case.text)


def _keywords(library: Library, vocabulary: Vocabulary) -> dict[str, str]:
    """Of each keyword whether it is held to, refused, or passed over without a word."""
    ids = {piece: token_id for token_id, piece in enumerate(vocabulary.token_bytes)}

    def takes(walk: Walk, value: Any) -> bool:
        text = json.dumps(value).encode()
        return all(walk.accept(ids[bytes((byte,))]) for byte in text) and walk.may_end()

    found = {}
    for name, schema in KEYWORDS.items():
        try:
            walk_of = library.compile(Case(name, "json_schema", json.dumps(schema), ""))
        except Exception:
            found[name] = "refused"
            continue
        if takes(walk_of(), WRONG[name]):
            found[name] = "passed over"
        else:
            found[name] = "held to" if takes(walk_of(), RIGHT[name]) else "too strict"
    return found


def _interpreter_share(library: Library, tokenizer: Any) -> float:
    """How fast another thread runs Python while masks are computed, against while nothing is."""
    case = CASES[1]
    walk = library.compile(case)()
    for token_id in tokenizer(case.text, add_special_tokens=False)["input_ids"][:4]:
        walk.accept(token_id)
    alone = _spins(lambda: time.sleep(0.001))
    return _spins(walk.mask) / alone


def _spins(work: Callable[[], Any]) -> int:
    stop = threading.Event()

    def keep_working() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=keep_working)
    thread.start()
    count = 0
    until_s = time.perf_counter() + SPIN_S
    while time.perf_counter() < until_s:
        count += 1
    stop.set()
    thread.join()
    return count


if __name__ == "__main__":
    main(sys.argv[1:])
