"""What may listen where without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.controller.settings import ControllerSettings
from services.gateway.keys.key import Key
from services.gateway.settings import GatewaySettings
from services.mesh.errors import StartError
from services.mesh.exposure import is_loopback
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.settings import WorkerSettings

KEYS = (Key("a", b"digest"),)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
        ("mesh.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_controllers_and_workers_listen_on_loopback_unless_told() -> None:
    for host in ("127.0.0.1", "localhost"):
        ControllerSettings(host=host)
        WorkerSettings(ScriptedSettings(), host=host)
    with pytest.raises(StartError, match=r"--host is 10.0.0.1.*--allow-anonymous"):
        ControllerSettings(host="10.0.0.1")
    with pytest.raises(StartError, match=r"--host is 10.0.0.1.*--allow-anonymous"):
        WorkerSettings(ScriptedSettings(), host="10.0.0.1")
    ControllerSettings(host="10.0.0.1", allow_anonymous=True)
    WorkerSettings(ScriptedSettings(), host="10.0.0.1", allow_anonymous=True)


def test_a_gateway_listens_beyond_it_with_keys_or_when_told() -> None:
    GatewaySettings(host="0.0.0.0", api_keys=KEYS)
    GatewaySettings(host="0.0.0.0", api_keys_file=Path("keys.yaml"))
    GatewaySettings(host="0.0.0.0", allow_anonymous=True)
    GatewaySettings(host="0.0.0.0", published_address="127.0.0.1")
    with pytest.raises(StartError, match=r"--host is 0.0.0.0, and no API keys.*--allow-anonymous"):
        GatewaySettings(host="0.0.0.0")
    with pytest.raises(StartError, match=r"--published-address is 0.0.0.0, and no API keys"):
        GatewaySettings(host="127.0.0.1", published_address="0.0.0.0")
