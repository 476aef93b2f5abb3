"""The key that a call brings. Pure."""

from __future__ import annotations

from collections.abc import Iterable

HEADERS = ("authorization", "x-api-key", "api-key")
"""In the order in which they count: OpenAI's, Anthropic's, Azure's. gRPC calls them metadata."""

_SCHEME = "bearer"


def presented_key(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The key in a call's metadata; None where there is none.

    `authorization` counts where it is a bearer's; other schemes are for proxies on the way.
    """
    found = {name: value for name, value in metadata if name in HEADERS}
    for name in HEADERS:
        value = found.get(name)
        if not isinstance(value, str):
            continue
        if name == "authorization":
            scheme, _, value = value.strip().partition(" ")
            if scheme.lower() != _SCHEME:
                continue
        if value.strip():
            return value.strip()
    return None
