"""Client channels between services, with the options that make a dead peer show itself."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# A peer that answers no ping within KEEPALIVE_TIMEOUT_MS is dead. Shorter notices sooner and costs
# a packet each way per interval. A process stopped for longer than both together is dropped.
KEEPALIVE_INTERVAL_MS = 2_000
KEEPALIVE_TIMEOUT_MS = 2_000

# Reconnects must come faster than a heartbeat (2 s), so that a restarted controller learns of all
# workers within one interval.
RECONNECT_INITIAL_MS = 100
RECONNECT_MAX_MS = 1_000

# One attempt to connect may take so long. Shorter gives up on a peer that is far away or busy, over
# and over; longer waits for an address that swallows packets. A refused attempt ends at once.
CONNECT_LIMIT_MS = 5_000

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_INITIAL_MS),
    ("grpc.min_reconnect_backoff_ms", CONNECT_LIMIT_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    # One TCP connection per channel: two channels to one address never share a fate.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel to "host:port". Connects when first used; close it when done.

    `options` are gRPC channel arguments beside those that every channel has.
    """
    return grpc.aio.insecure_channel(address, options=(*CHANNEL_OPTIONS, *options))
