"""Compiles grammars in a process of its own, to see whether one ends it or never comes back.

Runs as a script beside a worker, and imports nothing but the library: one grammar a line comes in,
as JSON; a line that says "tried" goes out for each.
"""

from __future__ import annotations

import json
import resource
import sys

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

CPU_LIMIT_S = 60
"""After so much work it ends, so that none is left behind spinning when its worker is killed."""
MEMORY_LIMIT_BYTES = 2 * 2**30


class _Bytes:
    """A vocabulary of single bytes: what is tried is the grammar. Others say nothing."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, size: int) -> None:
        size = max(size, 257)
        self.tokens = [bytes((each,)) for each in range(256)] + [b""] * (size - 256)
        self.eos_token_id = size - 1
        self.special_token_ids = [size - 1]

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def main() -> None:
    """Tries what comes, until nothing more does."""
    size, limits = int(sys.argv[1]), json.loads(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    tokens = _Bytes(size)
    tokenizer = LLTokenizer(tokens, n_vocab=len(tokens.tokens), eos_token=tokens.eos_token_id)  # type: ignore[arg-type]
    for line in sys.stdin:
        matcher = LLMatcher(
            tokenizer, json.loads(line), log_level=0, limits=LLParserLimits(**limits)
        )
        if not matcher.is_error():
            matcher.compute_bitmask()
        sys.stdout.write("tried\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
