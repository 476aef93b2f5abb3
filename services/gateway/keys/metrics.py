"""What is counted of keys, by their names. Nothing here ever holds a key or its hash."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.gateway.keys.key import Key
from services.mesh.metrics import BoundedLabel

MAX_KEYS_SHOWN = 500
"""Keys beyond them are counted together, as "other"."""


class KeyMetrics:
    """The metrics of all keys, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bounded = BoundedLabel(MAX_KEYS_SHOWN)
        self.of = cache(self._of)
        self.requests = Counter(
            "tokenmesh_gateway_key_requests",
            "Requests that were let in, by the name of the key.",
            ("key",),
            registry=registry,
        )
        self.tokens = Counter(
            "tokenmesh_gateway_key_tokens",
            "Tokens of requests, by the name of the key and kind: prompt or completion.",
            ("key", "kind"),
            registry=registry,
        )
        self.refusals = Counter(
            "tokenmesh_gateway_key_refusals",
            "Refusals by the name of the key, empty where nobody's was given, and reason: missing, "
            "unknown, revoked, expired, model, requests (per minute), tokens (per minute), "
            "concurrent, or paused: a stream whose next tokens were over a minute away.",
            ("key", "reason"),
            registry=registry,
        )
        self.paused = Counter(
            "tokenmesh_gateway_key_paused_seconds",
            "Seconds that streams were held back because their key was over its tokens per minute.",
            ("key",),
            registry=registry,
        )
        self.expiry = Gauge(
            "tokenmesh_gateway_key_expiry_timestamp_seconds",
            "When a key expires, in seconds since the epoch; of keys that do and are not revoked.",
            ("key",),
            registry=registry,
        )
        self.known = Gauge(
            "tokenmesh_gateway_keys",
            "Keys that are known, revoked and expired ones included.",
            registry=registry,
        )
        self.file_broken = Gauge(
            "tokenmesh_gateway_keys_file_broken",
            "1 while the file of API keys cannot be used as it stands; the keys read before count.",
            registry=registry,
        )
        self._with_expiry: set[str] = set()

    def note_file(self, *, is_valid: bool) -> None:
        """Whether the file, as it stands, could be read."""
        self.file_broken.set(not is_valid)

    def note_keys(self, keys: Sequence[Key]) -> None:
        """These keys count now."""
        self.known.set(len(keys))
        expiries = {
            self._bounded(key.name): key.expires_at_s
            for key in keys
            if key.expires_at_s is not None and not key.is_disabled
        }
        for name in self._with_expiry - expiries.keys():
            self.expiry.remove(name)
        for name, expires_at_s in expiries.items():
            self.expiry.labels(name).set(expires_at_s)
        self._with_expiry = set(expiries)

    def _of(self, name: str) -> OneKeyMetrics:
        return OneKeyMetrics(self, self._bounded(name) if name else "")


class OneKeyMetrics:
    """The metrics of one key, with its name looked up once."""

    def __init__(self, metrics: KeyMetrics, label: str) -> None:
        self._label = label
        self._metrics = metrics

    def count_request(self) -> None:
        """A request was let in."""
        self._metrics.requests.labels(self._label).inc()

    def count_tokens(self, kind: str, tokens: int) -> None:
        """So many tokens, "prompt" or "completion", were used."""
        self._metrics.tokens.labels(self._label, kind).inc(tokens)

    def count_refusal(self, reason: str) -> None:
        """Something was refused."""
        self._metrics.refusals.labels(self._label, reason).inc()

    def count_pause(self, wait_s: float) -> None:
        """A stream is held back for so long."""
        self._metrics.paused.labels(self._label).inc(wait_s)
