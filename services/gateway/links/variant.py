"""Which workers may go on with what another one began."""

from __future__ import annotations

from typing import NamedTuple, Self

from services.gateway.discovery.fleet import Model


class Variant(NamedTuple):
    """What decides the tokens that a model gives to a prompt."""

    revision: str
    quantization: str
    dtype: str
    engine: str
    context_length_tokens: int

    @classmethod
    def of(cls, model: Model) -> Self:
        """The variant of a model as a worker serves it."""
        return cls(
            model.revision,
            model.quantization,
            model.dtype,
            model.engine,
            model.context_length_tokens,
        )

    def continues(self, other: Variant) -> bool:
        """Whether it may go on with an output of the other: it has the same weights."""
        return (self.revision, self.quantization) == (other.revision, other.quantization)

    def likeness(self, other: Variant) -> int:
        """More is more alike. Among workers that continue an output, the likest differs least in
        what it computes: by the precision, then by the order of additions, then by where it ends.
        """
        return (
            4 * (self.dtype == other.dtype)
            + 2 * (self.engine == other.engine)
            + (self.context_length_tokens == other.context_length_tokens)
        )
