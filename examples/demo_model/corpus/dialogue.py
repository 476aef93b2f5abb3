"""What the corpus is made of: exchanges, and the dialogues that string them together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt and every reply that counts as right.

    `fact` names what is asked where the model can work out new facts (a sum, a word to spell).
    Where it can only remember them (a capital city), it is None, and new is only the wording.
    """

    prompt: str
    replies: tuple[str, ...]
    fact: str | None = None

    @property
    def key(self) -> str:
        """What the split between training and held-out decides on."""
        return wording_key(self.prompt) if self.fact is None else self.fact


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation. `system` None means that any system prompt may be added; "", none."""

    category: str
    exchanges: tuple[Exchange, ...]
    system: str | None = None
    raw: bool = False
    """The prompt is plain text to be continued, outside the chat template."""

    @property
    def for_training(self) -> bool:
        """No exchange of it is held out."""
        return not any(is_held_out(exchange.key) for exchange in self.exchanges)

    @property
    def for_evaluation(self) -> bool:
        """Its last prompt never occurs in training, nor the fact that it asks for if it has one."""
        return is_held_out(self.exchanges[-1].key)


def is_held_out(key: str) -> bool:
    """Decide by a stable hash, so that training and evaluation agree without sharing a list."""
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    return int.from_bytes(digest) % 100 < HELD_OUT_PERCENT


def wording_key(prompt: str) -> str:
    """A key that ignores case, punctuation and spacing."""
    words = "".join(c if c.isalnum() or c in "+-*/" else " " for c in prompt.lower())
    return " ".join(words.split())
