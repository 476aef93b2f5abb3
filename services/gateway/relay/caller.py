"""Who asks: the identity that fair queueing and limits go by."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.gateway.relay.token_rate import TokenRate


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the gateway treats fairly beside others.

    Attributes:
        identity: what the gateway knows for sure, and a client cannot choose: the name of its key,
            or the address that Envoy saw where keys are not asked for.
        user: whom the caller says that it asks for. It shares the caller's part fairly among the
            caller's users, and so gains nothing by inventing some.
        weight: the caller's part, relative to that of others.
        rate: what keeps account of the caller's tokens; None where nothing does.
    """

    identity: str = ""
    user: str = ""
    weight: float = 1.0
    rate: TokenRate | None = field(default=None, compare=False, repr=False)


ANYBODY = Caller()
