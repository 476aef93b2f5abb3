"""The scripted engine counts cached tokens as a real one would."""

from __future__ import annotations

import pytest

from services.worker.engines.scripted.prefix_cache import BLOCK_TOKENS, PrefixCache

PROMPT = list(range(5 * BLOCK_TOKENS))


@pytest.mark.parametrize(
    ("kept", "asked", "cached_blocks"),
    [
        ([], PROMPT, 0),
        (PROMPT, PROMPT, 4),
        (PROMPT, [*PROMPT, 1], 5),
        (PROMPT, PROMPT[:-1], 4),
        (PROMPT[:20], PROMPT, 1),
        (PROMPT, [*PROMPT[:40], 999, *PROMPT[41:]], 2),
        (PROMPT, [999, *PROMPT[1:]], 0),
        (PROMPT[BLOCK_TOKENS:], PROMPT, 0),
        (PROMPT, PROMPT[: BLOCK_TOKENS + 1], 1),
        (PROMPT, PROMPT[:BLOCK_TOKENS], 0),
    ],
    ids=[
        "nothing is kept",
        "the last token is computed",
        "all of it is a prefix",
        "its last block is cut",
        "whole blocks only",
        "up to a difference",
        "another beginning",
        "another place",
        "a block and a token",
        "a block alone",
    ],
)
def test_whole_blocks_are_found_up_to_the_first_difference(
    kept: list[int], asked: list[int], cached_blocks: int
) -> None:
    cache = PrefixCache()
    cache.keep(kept)
    assert cache.match(asked) == cached_blocks * BLOCK_TOKENS


def test_the_least_recently_used_goes_first_from_its_end() -> None:
    cache = PrefixCache()
    first, second = PROMPT, [token + 1000 for token in PROMPT]
    cache.keep(first)
    cache.keep(second)
    cache.match([*first, 1])
    cache.shrink(6 * BLOCK_TOKENS)
    assert cache.match([*first, 1]) == len(first)
    assert cache.match([*second, 1]) == BLOCK_TOKENS
    cache.shrink(-5)
    assert len(cache) == 0
