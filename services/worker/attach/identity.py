"""Who a worker is: what it tells controllers and gateways about itself."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

ALL_INTERFACES = frozenset({"0.0.0.0", "::", "[::]", ""})


@dataclass(frozen=True)
class Identity:
    """A worker's name, where to reach it, and which run of it this is."""

    worker_id: str
    address: str
    speed: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex)


def advertised_address(host: str, port: int) -> str:
    """The address to tell others for a server on `host:port`.

    A server on all interfaces is reached at this machine's own address, or, where it has none that
    leads anywhere, at its name.
    """
    if host not in ALL_INTERFACES:
        return f"{host}:{port}"
    return f"{_own_address()}:{port}"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing: it only chooses the route. The address
            # is one that documentation is given (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
