"""A small real constraint: the output is one of several token sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import Constraint
from services.worker.engines.constraints import TokenConstraint, Vocabulary, Words


class OneOf:
    """Allows what goes on with one of the sequences, and the end where one is complete."""

    def __init__(self, sequences: Iterable[Sequence[int]], end_id: int) -> None:
        self._sequences = [(*sequence, end_id) for sequence in sequences]
        self._output: tuple[int, ...] = ()

    def fill_allowed(self, words: Words) -> None:
        words[:] = 0
        place = len(self._output)
        for sequence in self._sequences:
            if sequence[:place] == self._output and place < len(sequence):
                bits = words.view("uint32")
                bits[sequence[place] // 32] |= 1 << sequence[place] % 32

    def accept(self, token_id: int) -> None:
        self._output += (token_id,)

    def rebuild(self, output_ids: Sequence[int]) -> None:
        self._output = tuple(output_ids)


class ChoicesCompiler:
    """Compiles constraints of the form "choices"."""

    def __init__(self, encode: Callable[[str], Sequence[int]], end_id: int) -> None:
        self._encode = encode
        self._end_id = end_id

    def compile(self, constraint: Constraint) -> TokenConstraint:
        if constraint.form != "choices":
            raise InvalidRequestError("only choices are known", field="sampling.constraint")
        return OneOf(map(self._encode, constraint.choices), self._end_id)


def choices_compiler(vocabulary: Vocabulary) -> ChoicesCompiler:
    """As an engine's settings name it."""

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return ChoicesCompiler(encode, min(vocabulary.end_ids))
