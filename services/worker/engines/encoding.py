"""What is asked of an engine that reads whole texts and generates none: vectors, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from services.mesh.errors import ModelNotFoundError, UnsupportedError

EmbedInput = str | tuple[int, ...]
"""A text, or its token ids as they are to be read: special tokens are not added to these."""


@dataclass(frozen=True)
class Truncation:
    """What happens to a text that is longer than the model reads."""

    truncate: bool | None = None
    """Cut it, or refuse it. None: as the engine is set."""
    tokens: int | None = None
    """Cut it to so many tokens, special ones included, whatever `truncate` says."""


@dataclass(frozen=True)
class EmbedCall:
    """Texts to embed. All of them are embedded, or the call fails."""

    request_id: str
    model: str
    inputs: Sequence[EmbedInput]
    dimensions: int | None = None
    """Cuts the vectors to so many values and normalises them again. None: all."""
    truncation: Truncation = Truncation()
    deadline_s: float | None = None
    """On the monotonic clock."""


@dataclass(frozen=True)
class ScoreCall:
    """Pairs to score. All of them are scored, or the call fails."""

    request_id: str
    model: str
    queries: Sequence[str]
    """One for all documents, or one for each."""
    documents: Sequence[str]
    truncation: Truncation = Truncation()
    deadline_s: float | None = None
    """On the monotonic clock."""


@dataclass(frozen=True)
class Embedded:
    """The vectors, in the order of the inputs."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int
    """Of all inputs, special tokens included, as they were computed."""


@dataclass(frozen=True)
class Scored:
    """The scores, in the order of the documents."""

    scores: Sequence[float]
    prompt_tokens: int
    """Of all pairs, special tokens included, as they were computed."""


def refuse_to_encode(model: str, served: Sequence[str], *, what: str) -> NoReturn:
    """Ends a call to a model that generates.

    Args:
        model: whom the call asks for.
        served: names that the engine serves.
        what: "embeds" or "scores".

    Raises:
        ModelNotFoundError: the engine does not serve it.
        UnsupportedError: it does.
    """
    if model not in served:
        raise ModelNotFoundError(f"this worker does not serve model {model!r}", field="model")
    raise UnsupportedError(
        f"the model {model!r} generates text and {what} none: ask an embedding model or a "
        "cross-encoder",
        field="model",
    )
