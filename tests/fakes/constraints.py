"""A small real constraint: the output is one of several token sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from services.mesh.errors import InvalidRequestError
from services.worker.engines import forms
from services.worker.engines.constraints import (
    BatchWords,
    CompilerCounters,
    TokenConstraint,
    Vocabulary,
    Words,
    fill_each,
)


class OneOf:
    """Allows what goes on with one of the sequences, and the end where one is complete."""

    def __init__(self, sequences: Iterable[Sequence[int]], end_id: int) -> None:
        self._sequences = [(*sequence, end_id) for sequence in sequences]
        self._output: tuple[int, ...] = ()

    @property
    def is_complete(self) -> bool:
        return any(self._output == sequence for sequence in self._sequences)

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
    """Compiles a choice of literals, token by token as they are encoded."""

    def __init__(self, encode: Callable[[str], Sequence[int]], end_id: int) -> None:
        self._encode = encode
        self._end_id = end_id

    def compile(self, form: forms.Form) -> TokenConstraint:
        match form:
            case forms.OneOf(parts):
                texts = [each.text for each in parts if isinstance(each, forms.Literal)]
                return OneOf(map(self._encode, texts), self._end_id)
        raise InvalidRequestError("only choices are known", field="sampling.constraint")

    def is_compiled(self, form: forms.Form) -> bool:
        return False

    def fill(self, constraints: Sequence[TokenConstraint], words: BatchWords) -> None:
        fill_each(constraints, words)

    def close(self) -> None:
        pass

    def counters(self) -> CompilerCounters:
        return CompilerCounters()


def choices_compiler(vocabulary: Vocabulary) -> ChoicesCompiler:
    """As an engine's settings name it. Spells in single bytes."""
    ids = {piece: token_id for token_id, piece in enumerate(vocabulary.token_bytes)}

    def encode(text: str) -> Sequence[int]:
        return [ids[bytes((each,))] for each in text.encode()]

    return ChoicesCompiler(encode, min(vocabulary.end_ids))
