"""How long a worker takes, as a gateway measures it: a peak-sensitive average that fades.

After the peak EWMA of Twitter's Finagle: a worse measurement counts at once, better ones bring the
average down with time. Without measurements it fades to nothing, so that a worker that was once
slow is tried again.
"""

from __future__ import annotations

import math

ANSWER_TOKENS = 32
"""Tokens of the answer whose time is compared. More weighs the time between tokens higher, fewer
the queue and the prefill; a short answer is where routing still helps."""


class PeakEwma:
    """One measured duration.

    Args:
        time_constant_s: after so long an old measurement counts a third. Longer is calmer, shorter
            follows changes sooner.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._value_s = 0.0
        self._measured_at_s = 0.0

    def measure(self, duration_s: float, now_s: float) -> None:
        """Takes a measurement."""
        if duration_s >= self._value_s:
            self._value_s = duration_s
        else:
            old_share = self._share_left(now_s)
            self._value_s = self._value_s * old_share + duration_s * (1 - old_share)
        self._measured_at_s = now_s

    def value_s(self, now_s: float, *, silent_after_s: float) -> float:
        """The average in seconds; 0 when nothing was measured for `silent_after_s` seconds."""
        return self._value_s if now_s - self._measured_at_s < silent_after_s else 0.0

    def _share_left(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self._measured_at_s) / self._time_constant_s)


class WorkerLatency:
    """TTFT and ITL of one worker.

    Args:
        time_constant_s: see PeakEwma.
        silent_after_s: without a measurement for so long, the worker counts as unknown.
    """

    def __init__(self, *, time_constant_s: float = 10.0, silent_after_s: float = 30.0) -> None:
        self._silent_after_s = silent_after_s
        self._first_token = PeakEwma(time_constant_s)
        self._inter_token = PeakEwma(time_constant_s)

    def measure_first_token(self, duration_s: float, now_s: float) -> None:
        """A request got its first token so long after it was sent."""
        self._first_token.measure(duration_s, now_s)

    def measure_inter_token(self, duration_s: float, now_s: float) -> None:
        """A request's tokens came so long after each other, on average."""
        self._inter_token.measure(duration_s, now_s)

    def inter_token_s(self, now_s: float) -> float:
        """Time between two tokens, in seconds; 0 when it is not known."""
        return self._inter_token.value_s(now_s, silent_after_s=self._silent_after_s)

    def answer_s(self, now_s: float) -> float:
        """Time of an answer of ANSWER_TOKENS, in seconds; 0 when it is not known."""
        silent_after_s = self._silent_after_s
        first_token_s = self._first_token.value_s(now_s, silent_after_s=silent_after_s)
        if not first_token_s:
            return 0.0
        inter_token_s = self._inter_token.value_s(now_s, silent_after_s=silent_after_s)
        return first_token_s + (ANSWER_TOKENS - 1) * inter_token_s
