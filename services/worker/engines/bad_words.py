"""Keeps certain words out of an output: says which tokens may not come next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from services.mesh.errors import InvalidRequestError

Encode = Callable[[str], Sequence[int]]

_ANCHORS = ("\n", "a")
"""What a word is put behind to see its tokens inside a text, where tokenizers add no space."""


class BadWords:
    """The token sequences that may not come in an output. Holds no state of any output.

    Args:
        sequences: each is not empty.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        self._starts: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        single: dict[int, None] = {}
        for sequence in dict.fromkeys(map(tuple, sequences)):
            *start, last = sequence
            if start:
                self._starts.setdefault(start[-1], []).append((tuple(start), last))
            else:
                single[last] = None
        self.always: tuple[int, ...] = tuple(single)
        """Tokens that are a word by themselves."""

    def next_after(self, output_ids: Sequence[int]) -> Iterator[int]:
        """The tokens, beside `always`, that would now complete a word."""
        if not output_ids or output_ids[-1] not in self._starts:
            return
        for start, last in self._starts[output_ids[-1]]:
            if tuple(output_ids[-len(start) :]) == start:
                yield last


def bad_words(words: Sequence[str], encode: Encode) -> BadWords:
    """The ways in which a tokenizer writes words: at the start of a text, inside it, after a space.

    Other ways to spell a word, such as letter by letter, stay possible.

    Args:
        encode: token ids of a text, without special tokens around it.

    Raises:
        InvalidRequestError: the tokenizer has no tokens for a word.
    """
    sequences: list[Sequence[int]] = []
    for number, word in enumerate(words):
        found = [ids for each in (word, f" {word.lstrip()}") for ids in _ways(each, encode) if ids]
        if not found:
            raise InvalidRequestError(
                f"bad_words[{number}] is {word!r}, which has no tokens in this model",
                field=f"sampling.bad_words[{number}]",
            )
        sequences += found
    return BadWords(sequences)


def _ways(text: str, encode: Encode) -> Iterator[Sequence[int]]:
    yield encode(text)
    for anchor in _ANCHORS:
        before = list(encode(anchor))
        together = list(encode(anchor + text))
        if together[: len(before)] == before:
            yield together[len(before) :]
