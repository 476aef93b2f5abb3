"""Who a call comes from."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote

import grpc

from services.gateway.relay.caller import Caller

FORWARDED_FOR_KEY = "x-forwarded-for"
"""Envoy appends the address that it sees; what stands before it, a client may have made up."""

IPV6_PREFIX_BITS = 64
"""The smallest network that one customer gets: its addresses are one caller."""


def caller_of(context: grpc.aio.ServicerContext[Any, Any], user: str = "") -> Caller:
    """The caller by address, and the user that it says it asks for."""
    address = _host(context.peer())
    for key, value in context.invocation_metadata() or ():
        if key == FORWARDED_FOR_KEY:
            address = str(value).rpartition(",")[2].strip() or address
    return Caller(_network(address), user)


def _host(peer: str) -> str:
    """Of "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000". Other transports have one caller each."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    return rest.rpartition(":")[0].strip("[]")


def _network(address: str) -> str:
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if isinstance(known, IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ip_network((known, IPV6_PREFIX_BITS), strict=False))
    return address
