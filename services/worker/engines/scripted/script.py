"""What the scripted engine says: a pure function of (prompt, seed, choice, position).

One long script is laid down once; the prompt, the seed and the choice decide where in it an output
begins. A token then costs one look-up. Now and then the script holds a character of two to four
byte tokens, so that whoever detokenizes must wait for whole characters. An output may also be a
text that is given.
"""

from __future__ import annotations

import codecs
import hashlib
import random
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from services.worker.engines.base import Chunk
from services.worker.engines.scripted import vocabulary


class Script(NamedTuple):
    """What one output says, over and over until it ends."""

    chunks: tuple[Chunk, ...]
    """A ready chunk for each token: its text is empty inside of a character."""
    start: int = 0
    """Where in `chunks` the output begins."""

    def chunk_at(self, position: int) -> Chunk:
        """The chunk of the output's token at a position."""
        return self.chunks[(self.start + position) % len(self.chunks)]


GROUP_TOKENS = 4
"""Outputs begin at a multiple of it, so never inside a character."""
GROUPS = 1024
SCRIPT_TOKENS = GROUP_TOKENS * GROUPS

_CHARACTERS = ("é", "ß", "€", "語", "🙂", "🌊")
_CHARACTER_SHARE = 1 / 12


def _write_script() -> tuple[int, ...]:
    draw = random.Random(20_250_101).random
    token_ids: list[int] = []
    for _ in range(GROUPS):
        group: list[int] = []
        if draw() < _CHARACTER_SHARE:
            group.extend(_CHARACTERS[int(draw() * len(_CHARACTERS))].encode())
        while len(group) < GROUP_TOKENS:
            group.append(vocabulary.FIRST_WORD_ID + int(draw() * len(vocabulary.WORDS)))
        token_ids.extend(group)
    return tuple(token_ids)


def _chunks_of(
    token_ids: Sequence[int], visible_markers: frozenset[str] = frozenset()
) -> tuple[Chunk, ...]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return tuple(
        Chunk(
            decoder.decode(
                vocabulary.token_bytes(
                    each, skip_special_tokens=True, visible_markers=visible_markers
                )
            ),
            (each,),
        )
        for each in token_ids
    )


_SCRIPT = _chunks_of(_write_script())


def long_script(prompt_token_ids: Sequence[int], seed: int, choice_index: int) -> Script:
    """The one script, from where the output of a choice begins."""
    state = hashlib.blake2b(array("I", prompt_token_ids).tobytes(), digest_size=8)
    state.update(seed.to_bytes(8, "little") + choice_index.to_bytes(4, "little"))
    start = int.from_bytes(state.digest(), "little") % GROUPS * GROUP_TOKENS
    return Script(_SCRIPT, start)


def given_script(
    text: str, *, skip_special_tokens: bool, visible_markers: frozenset[str]
) -> Script:
    """A text as the tokens that a model would write it with."""
    shown = visible_markers if skip_special_tokens else frozenset(vocabulary.MARKERS)
    token_ids = vocabulary.encode_output(text) or [vocabulary.END_TOKEN_ID]
    return Script(_chunks_of(token_ids, shown))
