"""A small reversible tokenization: some words are tokens, all else is bytes.

Ids 0 to 255 are the bytes, 256 ends a text, from 257 on come words with a leading space, and then
the markers that models write around reasoning and tool calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

END_TOKEN_ID = 256
END_TOKEN_TEXT = "<|end|>"  # noqa: S105
FIRST_WORD_ID = 257

_WORD_LIST = """
    a about above after again all always and any are as at away be because been before began below
    best between birds blue both bright bring but by came can carry city clear close cold come
    could country day deep did do door down each early earth end even evening every far fast few
    field find fire first five follow food for forest found four friend from full gave garden give
    go gold good great green grew ground had half hand happy hard has have he hear held help her
    here high hill his home hope house how if in into is it just keep kind knew land large last
    late learn left let light like line little live long look made make many may mean might moon
    more morning most mountain move much must name near never new next night no north not now of
    off often old on once one only open or other our out over own paper part people place plain
    play point quiet rain read red rest right river road round run said same saw sea second see
    seem sent set seven shall ship short should show side silver sing six sky sleep slow small
    snow so some song soon south stand star still stone story street strong such summer sun sure
    table take talk tall tell ten than that the their them then there these they thing think this
    those thought three through time to together told too took town tree true turn two under until
    up us very voice walk wall want warm was watch water way we well went were west what when
    where which while white who why wide will wind window winter wish with wood word work world
    would write year yellow yes yet you young
"""
WORDS = tuple(_WORD_LIST.split())

MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Special tokens, as the end token is."""
FIRST_MARKER_ID = FIRST_WORD_ID + len(WORDS)

VOCABULARY_SIZE = FIRST_MARKER_ID + len(MARKERS)

_TOKEN_BYTES: tuple[bytes, ...] = (
    *(bytes([value]) for value in range(256)),
    END_TOKEN_TEXT.encode(),
    *(f" {word}".encode() for word in WORDS),
    *(marker.encode() for marker in MARKERS),
)
_SPECIAL_TEXTS = {
    END_TOKEN_ID: END_TOKEN_TEXT,
    **{FIRST_MARKER_ID + index: marker for index, marker in enumerate(MARKERS)},
}
_WORD_IDS = {f" {word}": FIRST_WORD_ID + index for index, word in enumerate(WORDS)}
_MARKER_IDS = {marker: FIRST_MARKER_ID + index for index, marker in enumerate(MARKERS)}
_PIECES = re.compile(r" ?[a-z]+|[^a-z ]+| ")
_MARKER = re.compile("|".join(map(re.escape, MARKERS)))


def encode(text: str) -> list[int]:
    """Token ids of a text. Text that looks like a special token is bytes like any other."""
    token_ids: list[int] = []
    for piece in _PIECES.findall(text):
        word_id = _WORD_IDS.get(piece)
        if word_id is None:
            token_ids.extend(piece.encode("utf-8", "replace"))
        else:
            token_ids.append(word_id)
    return token_ids


def encode_output(text: str) -> list[int]:
    """Token ids of a text as a model writes it: its markers are tokens of their own."""
    token_ids: list[int] = []
    end = 0
    for marker in _MARKER.finditer(text):
        token_ids += encode(text[end : marker.start()])
        token_ids.append(_MARKER_IDS[marker[0]])
        end = marker.end()
    return token_ids + encode(text[end:])


def token_bytes(
    token_id: int,
    *,
    skip_special_tokens: bool = False,
    visible_markers: frozenset[str] = frozenset(),
) -> bytes:
    """The bytes that a token stands for. Special tokens that are skipped stand for none, except
    those whose texts are `visible_markers`.
    """
    if skip_special_tokens:
        special = _SPECIAL_TEXTS.get(token_id)
        if special is not None and special not in visible_markers:
            return b""
    return _TOKEN_BYTES[token_id]


def decode(token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    """Text of token ids; half a character becomes U+FFFD."""
    return b"".join(
        token_bytes(each, skip_special_tokens=skip_special_tokens) for each in token_ids
    ).decode("utf-8", "replace")
