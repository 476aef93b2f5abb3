"""All keys of a gateway, by their hashes, and what was used of each. Pure but for the clocks."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from services.gateway.keys.account import Account, AccountMetrics
from services.gateway.keys.hashing import MAX_KEY_CHARACTERS, digest_of, masked
from services.gateway.keys.key import Key
from services.mesh.errors import UnauthenticatedError

HOW_TO_SEND = "send it as the header 'authorization: Bearer KEY'"


@dataclass(frozen=True, slots=True)
class Access:
    """A key that was let in: its account, and the key's own digest, which may be replaced there."""

    account: Account
    digest: bytes = field(repr=False)


class KeyRing:
    """The keys that count now.

    Args:
        fixed: keys of the command line, which stay.
        clock_s: a monotonic clock, for rates.
        epoch_s: the seconds since the epoch, for expiry.
        metrics_of: what counts for a key, by its name; "" is nobody's.
    """

    def __init__(
        self,
        fixed: Iterable[Key] = (),
        *,
        clock_s: Callable[[], float],
        epoch_s: Callable[[], float],
        metrics_of: Callable[[str], AccountMetrics],
    ) -> None:
        self._fixed = tuple(fixed)
        self._clock_s = clock_s
        self._epoch_s = epoch_s
        self._metrics_of = metrics_of
        self._accounts: dict[str, Account] = {}
        self._by_digest: dict[bytes, Account] = {}
        self.replace(())

    def __iter__(self) -> Iterator[Key]:
        return (account.key for account in self._accounts.values())

    def replace(self, keys: Iterable[Key]) -> None:
        """Has these count from now on, beside the fixed ones, which go before them. What was used
        of a key whose name stays is kept.
        """
        by_name = {key.name: key for key in (*keys, *self._fixed)}
        accounts: dict[str, Account] = {}
        for name, key in by_name.items():
            known = self._accounts.get(name)
            if known is None:
                known = Account(key, clock_s=self._clock_s, metrics=self._metrics_of(name))
            elif known.key != key:
                known.change(key)
            accounts[name] = known
        self._accounts = accounts
        self._by_digest = {account.key.digest: account for account in accounts.values()}

    def authenticate(self, presented: str | None) -> Access:
        """Whose key it is.

        The look-up is by a hash that nobody can steer, and what it finds is compared in constant
        time: how long it takes says nothing of how near a guess came.

        Raises:
            UnauthenticatedError: there is no key, or it is none of these, revoked or expired.
        """
        if presented is None:
            self._metrics_of("").count_refusal("missing")
            raise UnauthenticatedError(f"no API key was given: {HOW_TO_SEND}")
        if len(presented) <= MAX_KEY_CHARACTERS:
            digest = digest_of(presented)
            account = self._by_digest.get(digest)
            if account is not None and hmac.compare_digest(account.key.digest, digest):
                self._check(account)
                return Access(account, digest)
        self._metrics_of("").count_refusal("unknown")
        raise UnauthenticatedError(f"incorrect API key provided: {masked(presented)}")

    def recheck(self, access: Access) -> None:
        """Checks again a key that was let in some time ago.

        Raises:
            UnauthenticatedError: it is gone, was replaced, revoked, or has expired.
        """
        account = self._by_digest.get(access.digest)
        if account is not access.account:
            access.account.refuse(UnauthenticatedError(_REFUSALS["revoked"]), "revoked")
        self._check(account)

    def _check(self, account: Account) -> None:
        why = account.key.why_refused(self._epoch_s())
        if why is not None:
            account.refuse(UnauthenticatedError(_REFUSALS[why]), why)


_REFUSALS = {"revoked": "this API key has been revoked", "expired": "this API key has expired"}
