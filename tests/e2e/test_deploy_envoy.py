"""The health check that compose gives Envoy's container, against a real Envoy."""

from __future__ import annotations

import subprocess

import yaml

from services.cli.up.notice import MeshNotice
from tests.monitoring import ROOT

PORT_IN_CONTAINER = "8000"
LIMIT_S = 20.0


def exit_code(port: str) -> int:
    """What the health check says of an Envoy on that port."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    kind, *command = compose["services"]["envoy"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert any(PORT_IN_CONTAINER in argument for argument in command)
    command = [argument.replace(PORT_IN_CONTAINER, port) for argument in command]
    return subprocess.run(command, check=False, capture_output=True, timeout=LIMIT_S).returncode


def test_an_envoy_with_a_gateway_is_healthy(mesh: MeshNotice) -> None:
    assert exit_code(mesh.grpc_address.rpartition(":")[2]) == 0


def test_what_answers_anything_but_200_is_not(mesh: MeshNotice) -> None:
    # Its metrics server has no such page.
    assert exit_code(mesh.envoy.metrics_address.rpartition(":")[2]) != 0


def test_nobody_is_not_healthy() -> None:
    assert exit_code("1") != 0
