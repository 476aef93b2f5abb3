"""HTTP/1.1 clients of raw sockets, which take in as little as may be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

RECEIVE_BUFFER_BYTES = 4096
ANSWER_LIMIT_S = 60.0


def request(path: str, body: dict[str, object], *fields: str) -> bytes:
    """A whole POST of JSON."""
    text = json.dumps(body).encode()
    return head(path, f"content-length: {len(text)}", *fields) + text


def head(path: str, *fields: str) -> bytes:
    """The head of a POST of JSON."""
    lines = (f"POST {path} HTTP/1.1", "host: mesh", "content-type: application/json", *fields)
    return "\r\n".join((*lines, "", "")).encode()


@contextmanager
def connected(address: str, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection that takes in little, from an address of this machine."""
    host, _, port = address.rpartition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        connection.settimeout(ANSWER_LIMIT_S)
        connection.bind((source, 0))
        connection.connect((host, int(port)))
        yield connection


def read_until_closed(connection: socket.socket) -> bytes:
    """All that comes until the other side ends."""
    received = bytearray()
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)
