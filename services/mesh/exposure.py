"""Whether a port may be reached by others than this machine. Pure.

Controllers and workers ask nobody for a key, and gateways only where keys were given. Whoever
reaches such a port can use the mesh or steer it: so it listens on loopback only, unless somebody
says in so many words that its network is closed.
"""

from __future__ import annotations

from ipaddress import ip_address

from services.mesh.errors import StartError

ALLOW_ANONYMOUS = "--allow-anonymous"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on a host. A name other than localhost may
    stand for anything.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_service_exposure(host: str, *, allow_anonymous: bool) -> None:
    """Checks where a controller or worker is to listen.

    Raises:
        StartError: others could reach it, and nobody said that they may.
    """
    if not (allow_anonymous or is_loopback(host)):
        raise StartError(
            f"--host is {host}, and this port asks nobody for a key: listen on 127.0.0.1, or say "
            f"{ALLOW_ANONYMOUS} if only the mesh reaches that network"
        )


def check_client_exposure(
    option: str, host: str, *, allow_anonymous: bool, asks_for_keys: bool
) -> None:
    """Checks where clients are to be let in.

    Raises:
        StartError: others could reach it without a key, and nobody said that they may.
    """
    if not (asks_for_keys or allow_anonymous or is_loopback(host)):
        raise StartError(
            f"{option} is {host}, and no API keys are asked for: give some with --api-keys-file or "
            f"TOKENMESH_API_KEYS, stay on 127.0.0.1, or say {ALLOW_ANONYMOUS} to let anybody in "
            "who reaches it"
        )
