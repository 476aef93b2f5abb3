"""How far a request may run ahead of what its gateway has read."""

from __future__ import annotations

import math

# Tokens that each choice may be ahead. More hides longer pauses of a gateway, at some hundred
# bytes of memory a token; fewer would let an engine that is faster than the network stand still.
WINDOW_TOKENS = 64


class CreditWindow:
    """Turns the client's credit and the worker's own window into credit for the engine.

    The engine grants alike to all choices of a request, so the window follows the choice that is
    ahead of the others.
    """

    def __init__(self, client_tokens: int, window_tokens: int = WINDOW_TOKENS) -> None:
        """`client_tokens` 0 is unlimited."""
        self._window = window_tokens
        self._client_limit: float = client_tokens or math.inf
        self.granted_tokens = int(min(window_tokens, self._client_limit))
        """What the engine has been granted so far."""

    @property
    def top_up_at_tokens(self) -> float:
        """So many tokens of one choice call for the next `top_up`."""
        if self.granted_tokens >= self._client_limit:
            return math.inf
        return self.granted_tokens - self._window // 2

    def extend(self, tokens: int) -> None:
        """The client grants more."""
        self._client_limit += tokens

    def top_up(self, produced_tokens: int) -> int:
        """What to grant the engine now that the choice ahead has produced so many tokens."""
        target = min(produced_tokens + self._window, self._client_limit)
        grant = max(0, int(target) - self.granted_tokens)
        self.granted_tokens += grant
        return grant
