"""A key: whom it stands for and what it allows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much a key may ask for, at each gateway. None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and completions together."""
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key that may enter.

    Attributes:
        name: whom it stands for, in metrics and logs. Unique; another digest of the same name is
            the same caller with a new key.
        digest: the SHA-256 of the key.
        models: patterns of the names that it may ask for, with * and ? as in file names.
        weight: its part of a mesh that is full, relative to the weights of others.
        is_named: whether somebody has given it its name. If not, that is of its place, where
            another key may stand tomorrow.
        expires_at_s: from when on it is refused, in seconds since the epoch.
    """

    name: str
    digest: bytes = field(repr=False)
    models: tuple[str, ...] = ("*",)
    limits: KeyLimits = KeyLimits()
    weight: float = 1.0
    is_named: bool = True
    expires_at_s: float | None = None
    is_disabled: bool = False
    note: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Whom it stands for to fair queueing, and to what is kept of its requests."""
        return self.name if self.is_named else self.digest.hex()

    def matches(self, model: str) -> bool:
        """Whether one of its patterns fits the name of a model, alias or adapter."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def why_refused(self, now_s: float) -> str | None:
        """Why it may not enter at a time since the epoch; None where it may."""
        if self.is_disabled:
            return "revoked"
        if self.expires_at_s is not None and self.expires_at_s <= now_s:
            return "expired"
        return None
