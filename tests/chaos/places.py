"""Where the processes of the mesh run: each in a network namespace, which can be cut off.

A bridge joins the namespaces; its address is this side's. Cutting takes the bridge's end of the
wire down: packets vanish, and nobody is told. Where namespaces cannot be made, all processes share
the loopback interface, and nothing can be cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.cli.up.preflight import claim_port

LOOPBACK = "127.0.0.1"
_PREFIX = "tmc"


class NamespacesUnavailableError(Exception):
    """Why no network namespaces can be made here."""


@dataclass(frozen=True)
class Place:
    """Where one process runs, and at which address it listens."""

    host: str
    port: int
    command_prefix: tuple[str, ...] = ()
    wire: str | None = None
    """The bridge's end of the wire to it; None where nothing can be cut."""

    @property
    def address(self) -> str:
        """ "host:port" of its gRPC server."""
        return f"{self.host}:{self.port}"

    def cut(self) -> None:
        """Drops every packet from and to it."""
        self._set_wire("down")

    def heal(self) -> None:
        """Carries packets again."""
        self._set_wire("up")

    def _set_wire(self, state: str) -> None:
        assert self.wire is not None, "this place cannot be cut off"
        _ip("link", "set", self.wire, state)


@contextmanager
def namespaces(count: int, port: int) -> Iterator[list[Place]]:
    """So many places, each in a namespace of its own. All listen on the same port.

    Raises:
        NamespacesUnavailableError: this process may not make any.
    """
    if shutil.which("ip") is None:
        raise NamespacesUnavailableError("there is no `ip`: scripts/install_network.sh installs it")
    _clean_up_after_the_dead()
    own = os.getpid()
    bridge = f"{_PREFIX}{own}"
    # Addresses for measurements between devices of one's own (RFC 2544).
    network = f"198.18.{own % 256}"
    made: list[str] = []
    try:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            made.append(bridge)
            _ip("addr", "add", f"{network}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            yield [_namespace(own, number, bridge, network, port) for number in range(count)]
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip() or error
            raise NamespacesUnavailableError(f"cannot make network namespaces: {why}") from None
    finally:
        _remove(own)


@contextmanager
def loopback(count: int) -> Iterator[list[Place]]:
    """So many places on this machine's loopback interface, each with a free port."""
    yield [Place(LOOPBACK, claim_port(LOOPBACK, 0)) for _ in range(count)]


def _namespace(own: int, number: int, bridge: str, network: str, port: int) -> Place:
    name = f"{_PREFIX}{own}-{number}"
    wire = f"{_PREFIX}{own}w{number}"
    host = f"{network}.{number + 2}"
    _ip("netns", "add", name)
    _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", wire, "master", bridge, "up")
    inside = ("-netns", name)
    _ip(*inside, "addr", "add", f"{host}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "link", "set", "lo", "up")
    return Place(host, port, ("ip", "netns", "exec", name), wire)


def _clean_up_after_the_dead() -> None:
    """Removes what runs left behind that were killed."""
    listed = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        name = line.split(": ")[1].partition("@")[0]
        owner = name.removeprefix(_PREFIX)
        if name.startswith(_PREFIX) and owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
            _remove(int(owner))


def _remove(own: int) -> None:
    """Removes a run's namespaces, their wires with them, and its bridge."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False)
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    for name in names:
        if name.startswith(f"{_PREFIX}{own}-"):
            _ip("netns", "delete", name)
    bridge = f"{_PREFIX}{own}"
    if os.path.exists(f"/sys/class/net/{bridge}"):
        _ip("link", "delete", bridge)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
