"""Requests that have killed workers, and are kept from them for a while.

A request is known by a fingerprint: a hash of the model, the prompt and the sampling, so that a
client that sends it again changes nothing. Time is handed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from services.mesh.errors import PoisonRequestError
from tokenmesh.worker.v1 import worker_pb2

MAX_FINGERPRINTS = 1024
"""The oldest go first: so many requests that kill workers are another kind of trouble."""

Fingerprint = bytes


def fingerprint(start: worker_pb2.Start, *, seed_was_drawn: bool) -> Fingerprint:
    """What a request asks for: model, prompt and sampling. A seed counts that the client chose."""
    asked = worker_pb2.Start()
    asked.CopyFrom(start)
    for field in (
        "request_id",
        "output_so_far",
        "time_left",
        "priority",
        "credit_tokens",
        "traceparent",
    ):
        asked.ClearField(field)
    if seed_was_drawn:
        asked.sampling.ClearField("seed")
    return hashlib.blake2b(asked.SerializeToString(deterministic=True), digest_size=16).digest()


class Quarantine:
    """The fingerprints that no worker is to see.

    Args:
        hold_s: how long each is kept. Longer spares workers, and keeps a request out that was
            innocent, or whose fault was mended.
        clock_s: a monotonic clock, in seconds.
        on_refusal: called for each request that is refused.
    """

    def __init__(
        self, hold_s: float, clock_s: Callable[[], float], on_refusal: Callable[[], None]
    ) -> None:
        self.hold_s = hold_s
        self._clock_s = clock_s
        self._on_refusal = on_refusal
        self._until_s: OrderedDict[Fingerprint, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, start: worker_pb2.Start, *, seed_was_drawn: bool) -> None:
        """Keeps a request out from now on."""
        key = fingerprint(start, seed_was_drawn=seed_was_drawn)
        self._until_s.pop(key, None)
        self._until_s[key] = self._clock_s() + self.hold_s
        while len(self._until_s) > MAX_FINGERPRINTS:
            self._until_s.popitem(last=False)

    def error(self, left_s: float | None = None) -> PoisonRequestError:
        """What a client is told. `left_s` is how long the request is still kept out."""
        return PoisonRequestError(
            "workers have died of this request: it is not computed for "
            f"{self.hold_s if left_s is None else left_s:.0f} s; change it"
        )

    def check(self, start: worker_pb2.Start, *, seed_was_drawn: bool) -> None:
        """Refuses a request that is kept out. Costs nothing while none is.

        Raises:
            PoisonRequestError: it is.
        """
        if not self._until_s:
            return
        now_s = self._clock_s()
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            self._until_s.popitem(last=False)
        if not self._until_s:
            return
        until_s = self._until_s.get(fingerprint(start, seed_was_drawn=seed_was_drawn))
        if until_s is not None:
            self._on_refusal()
            raise self.error(until_s - now_s)
