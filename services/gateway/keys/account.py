"""What a key has used of its limits. Pure: the time is handed in by a clock.

Requests are refused beyond their rate. Tokens are not known beforehand: a request enters while none
are owed, its prompt is charged when a worker has counted it, and its completion as it is granted to
the worker, so that a stream beyond the rate is slowed and never computes what is not paid for.
docs/keys.md tells what that means for clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn, Protocol

from services.gateway.keys.durations import duration_text
from services.gateway.keys.key import Key
from services.gateway.keys.place import Place
from services.gateway.keys.token_bucket import TokenBucket
from services.mesh.errors import MeshError, PermissionDeniedError, RateLimitedError

PACE_S = 1.0
"""A worker gets so many seconds' worth of a key's tokens ahead. Less has streams flow evenly; more
costs fewer messages."""

MIN_WINDOW_TOKENS = 2
CONCURRENT_RETRY_S = 1.0

_REQUESTS = "requests"
_LOOKS = "calls beside requests"

Headers = tuple[tuple[str, str], ...]


class AccountMetrics(Protocol):
    """What is counted of a key."""

    def count_request(self) -> None:
        """A request was let in."""
        ...

    def count_tokens(self, kind: str, tokens: int) -> None:
        """So many tokens, "prompt" or "completion", were used."""
        ...

    def count_refusal(self, reason: str) -> None:
        """Something was refused."""
        ...

    def count_pause(self, wait_s: float) -> None:
        """A stream is held back for so long."""
        ...


class Account:
    """The use of one key, by its name; a key that is changed in the file keeps it.

    Args:
        key: as it is now.
        clock_s: a monotonic clock.
    """

    def __init__(self, key: Key, *, clock_s: Callable[[], float], metrics: AccountMetrics) -> None:
        self.key = key
        self._open = dict.fromkeys((_REQUESTS, _LOOKS), 0)
        self._clock_s = clock_s
        self._metrics = metrics
        self._requests: TokenBucket | None = None
        self._tokens: TokenBucket | None = None
        self.change(key)

    def change(self, key: Key) -> None:
        """The key is this from now on. What was used stays used."""
        now_s = self._clock_s()
        self.key = key
        self._requests = _changed(self._requests, key.limits.requests_per_minute, now_s)
        self._tokens = _changed(self._tokens, key.limits.tokens_per_minute, now_s)

    def refuse(self, error: MeshError, reason: str) -> NoReturn:
        """Counts a refusal, and raises it."""
        self._metrics.count_refusal(reason)
        raise error

    def refuse_model(self, model: str) -> NoReturn:
        """Raises PermissionDeniedError for a model that the key may not use.

        It is the same for models that exist and for those that do not.
        """
        self.refuse(
            PermissionDeniedError(f"this API key may not use the model {model!r}", field="model"),
            "model",
        )

    def enter(self) -> Place:
        """Opens a request.

        Raises:
            RateLimitedError: as many are open as may.
        """
        return self._enter(_REQUESTS)

    def enter_to_look(self) -> Place:
        """Opens a call that is no request as rates count them. As many of these may be open as of
        requests, beside them: who has all its requests running can look at them, and end them.

        Raises:
            RateLimitedError: as many are open as may.
        """
        return self._enter(_LOOKS)

    def begin_request(self) -> None:
        """Counts a request.

        Raises:
            RateLimitedError: the key is over its requests per minute, or owes tokens.
        """
        now_s = self._clock_s()
        if self._requests is not None and not self._requests.has(1, now_s):
            self._limit(
                f"rate limit reached: {self._requests.per_minute:g} requests per minute",
                "requests",
                self._requests.wait_s(1, now_s),
            )
        if self._tokens is not None and not self._tokens.has(1, now_s):
            self._limit(
                f"rate limit reached: {self._tokens.per_minute:g} tokens per minute",
                "tokens",
                self._tokens.wait_s(1, now_s),
            )
        if self._requests is not None:
            self._requests.take(1, now_s)
        self._metrics.count_request()

    def headers(self) -> Headers:
        """What is left, in OpenAI's response headers; of the limits that the key has."""
        now_s = self._clock_s()
        limits = (("requests", self._requests), ("tokens", self._tokens))
        return tuple(
            header
            for name, bucket in limits
            if bucket is not None
            for header in (
                (f"x-ratelimit-limit-{name}", f"{bucket.per_minute:g}"),
                (f"x-ratelimit-remaining-{name}", str(max(0, math.floor(bucket.level(now_s))))),
                (
                    f"x-ratelimit-reset-{name}",
                    duration_text(bucket.wait_s(bucket.per_minute, now_s)),
                ),
            )
        )

    def window_tokens(self, most: int) -> int:
        """How many tokens a worker may be ahead with, of the most that any may."""
        if self._tokens is None:
            return most
        per_second = self._tokens.per_minute / 60
        return min(most, max(MIN_WINDOW_TOKENS, round(per_second * PACE_S)))

    def take(self, tokens: int) -> None:
        """Charges completion tokens that a worker may make at once; negative gives back."""
        if self._tokens is not None:
            self._tokens.take(tokens, self._clock_s())

    def reserve(self, tokens: int) -> float:
        """Charges completion tokens, and returns the seconds until a worker may make them. Requests
        of one key that ask at once get theirs one after the other.
        """
        if self._tokens is None:
            return 0.0
        now_s = self._clock_s()
        wait_s = self._tokens.wait_s(0, now_s)
        self._tokens.take(tokens, now_s)
        if wait_s:
            self._metrics.count_pause(wait_s)
        return wait_s

    def charge_prompt(self, tokens: int) -> None:
        """Charges and counts the tokens of a prompt."""
        self._metrics.count_tokens("prompt", tokens)
        self.take(tokens)

    def count_completion(self, tokens: int) -> None:
        """Counts completion tokens, which were charged as they were granted."""
        self._metrics.count_tokens("completion", tokens)

    def paused_too_long(self, wait_s: float) -> RateLimitedError:
        """Counts that a stream is given up because its next tokens are so far away."""
        self._metrics.count_refusal("paused")
        return RateLimitedError(
            "rate limit reached: this API key's tokens per minute are used up for the next "
            f"{wait_s:.0f} s by its other requests or by this one's prompt",
            retry_after_s=wait_s,
        )

    def _enter(self, kind: str) -> Place:
        most = self.key.limits.max_concurrent
        if most is not None and self._open[kind] >= most:
            self._limit(
                f"this API key may have {most} {kind} running at once, and has them",
                "concurrent",
                CONCURRENT_RETRY_S,
            )
        self._open[kind] += 1
        return Place(lambda: self._free(kind))

    def _free(self, kind: str) -> None:
        self._open[kind] -= 1

    def _limit(self, what: str, reason: str, wait_s: float) -> NoReturn:
        self.refuse(
            RateLimitedError(f"{what}; try again in {duration_text(wait_s)}", retry_after_s=wait_s),
            reason,
        )


def _changed(
    bucket: TokenBucket | None, per_minute: int | None, now_s: float
) -> TokenBucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return TokenBucket(per_minute, now_s)
    if bucket.per_minute != per_minute:
        bucket.change_rate(per_minute, now_s)
    return bucket
