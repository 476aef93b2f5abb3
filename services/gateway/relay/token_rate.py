"""The seam between a request and whoever keeps account of its caller's tokens."""

from __future__ import annotations

from typing import Protocol

from services.mesh.errors import RateLimitedError


class TokenRate(Protocol):
    """The tokens that a caller gets, now and later. Those that it cannot pay for yet must wait."""

    def window_tokens(self, most: int) -> int:
        """How many tokens a worker may be ahead with, of the most that any may."""
        ...

    def take(self, tokens: int) -> None:
        """Charges completion tokens that a worker may make at once; negative gives back."""
        ...

    def reserve(self, tokens: int) -> float:
        """Charges completion tokens, and returns the seconds until a worker may make them."""
        ...

    def charge_prompt(self, tokens: int) -> None:
        """Charges and counts the tokens of a prompt."""
        ...

    def count_completion(self, tokens: int) -> None:
        """Counts the completion tokens that a request had in the end."""
        ...

    def paused_too_long(self, wait_s: float) -> RateLimitedError:
        """Counts that a request is given up whose next tokens are so far away; gives the error."""
        ...
