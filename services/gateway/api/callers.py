"""Who a call comes from."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote

import grpc

from services.gateway.keys.current import current_access
from services.gateway.relay.caller import Caller

ADDRESS_KEY = "x-envoy-external-address"
"""Envoy sets it to the address that it sees, or that the proxies it is told to trust have seen, and
lets no client's own through. x-forwarded-for would not do: a client may have made up its beginning,
and Envoy puts itself at its end for a client on its own machine."""

IPV6_PREFIX_BITS = 64
"""The smallest network that one customer gets: its addresses are one caller."""


def caller_of(context: grpc.aio.ServicerContext[Any, Any], user: str = "") -> Caller:
    """The caller by its key, else by its address, and the user that it says it asks for."""
    access = current_access()
    if access is not None:
        account = access.account
        return Caller(account.key.identity, user, account.key.weight, account)
    address = _host(context.peer())
    for key, value in context.invocation_metadata() or ():
        if key == ADDRESS_KEY:
            address = str(value)
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
