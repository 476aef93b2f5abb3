"""What one request takes of its caller's tokens."""

from __future__ import annotations

from services.gateway.relay.token_rate import TokenRate

MAX_PAUSE_S = 60.0
"""A request whose next tokens are further away is given up: clients and proxies wait no longer, and
a worker keeps a place and memory for it meanwhile."""


class Spending:
    """Pays for credit before a worker gets it, and settles when it is known what came of it.

    Args:
        rate: None where the caller has no limit.
        window_tokens: how far a worker may be ahead of the client, for each choice.
        max_tokens: the most that a choice may have; None for no limit.
    """

    def __init__(
        self, rate: TokenRate | None, window_tokens: int, *, choices: int, max_tokens: int | None
    ) -> None:
        self.window_tokens = window_tokens
        self._rate = rate
        self._choices = choices
        self._paid_tokens = 0
        self._has_paid_prompt = False
        if rate is not None:
            most = window_tokens if max_tokens is None else min(window_tokens, max_tokens)
            self.window_tokens = rate.window_tokens(max(2, most))

    def begin(self, delivered_tokens: int) -> None:
        """Pays for the first credit of a worker. `delivered_tokens` came from those before it, over
        all choices; what they were given beyond is given back.
        """
        if self._rate is not None:
            paid_tokens = delivered_tokens + self.window_tokens * self._choices
            self._rate.take(paid_tokens - self._paid_tokens)
            self._paid_tokens = paid_tokens

    def extend(self, tokens: int) -> float:
        """Pays for more credit for each choice. Returns the seconds until a worker may get it.

        Raises:
            RateLimitedError: that is longer than a request may be held back.
        """
        if self._rate is None:
            return 0.0
        wait_s = self._rate.reserve(tokens * self._choices)
        self._paid_tokens += tokens * self._choices
        if wait_s > MAX_PAUSE_S:
            raise self._rate.paused_too_long(wait_s)
        return wait_s

    def pay_prompt(self, tokens: int) -> None:
        """Pays for the prompt, once its tokens are counted; further calls change nothing."""
        if self._rate is not None and tokens and not self._has_paid_prompt:
            self._has_paid_prompt = True
            self._rate.charge_prompt(tokens)

    def settle(self, completion_tokens: int) -> None:
        """Gives back what was paid for and not used. The request is over."""
        if self._rate is not None:
            self._rate.take(completion_tokens - self._paid_tokens)
            self._rate.count_completion(completion_tokens)
            self._paid_tokens = completion_tokens
