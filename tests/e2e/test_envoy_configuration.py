"""The one configuration is one that Envoy takes, however it is filled in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import yaml

from services.cli.up import envoy
from services.gateway.discovery.directory import Directory
from services.gateway.openai.responses.service import Responses
from services.gateway.openai.services import add_openai_services

SETTINGS = envoy.EnvoySettings(
    listen_host="127.0.0.1",
    listen_port=10_001,
    gateway_host="127.0.0.1",
    gateway_port=10_002,
    admin_port=10_003,
    metrics_port=10_004,
    cors_origin_regex=r"https://(a|b)\.example",
)
ENTRYPOINT = envoy.TEMPLATE_PATH.parent / "entrypoint.sh"


def test_envoy_takes_the_configuration_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(envoy.configuration(SETTINGS))
    command = [*envoy.command(SETTINGS, file), "--mode", "validate"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr
    assert "OK" in checked.stdout + checked.stderr


def test_the_container_fills_in_the_same_configuration(tmp_path: Path) -> None:
    printer = tmp_path / "envoy"
    printer.write_text('#!/bin/sh\nprintf "%s" "$2"\n')
    printer.chmod(0o755)
    settings = {name: value for name, value in SETTINGS.variables().items() if value}
    rendered = run_entrypoint({**settings, "ENVOY_BINARY": str(printer)})
    assert rendered.returncode == 0, rendered.stderr
    assert yaml.safe_load(rendered.stdout) == yaml.safe_load(envoy.configuration(SETTINGS))


def test_envoy_takes_the_containers_defaults() -> None:
    checked = run_entrypoint(
        {
            "ENVOY_BINARY": str(envoy.find_binary()),
            "DESCRIPTOR_PATH": str(envoy.DESCRIPTOR_PATH),
        },
        "--mode",
        "validate",
    )
    assert checked.returncode == 0, checked.stderr


def test_the_container_refuses_a_value_that_breaks_out() -> None:
    refused = run_entrypoint({"CORS_ORIGIN_REGEX": "it's"})
    assert refused.returncode == 2
    assert "CORS_ORIGIN_REGEX" in refused.stderr


def run_entrypoint(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = {"TOKENMESH_ENVOY_FOLDER": str(ENTRYPOINT.parent), "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["sh", str(ENTRYPOINT), *arguments],
        env={**folder, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_envoy_transcodes_what_gateways_serve() -> None:
    unused: Any = object()
    directory = Directory(clock_s=lambda: 0.0)
    served = add_openai_services(
        grpc.aio.server(),
        unused,
        directory,
        unused,
        Responses(unused, unused, unused),
        encode_relay=unused,
    )
    configuration: Any = yaml.safe_load(envoy.configuration(SETTINGS))
    transcoded = [
        set(found["services"])
        for found in every_object(configuration)
        if "GrpcJsonTranscoder" in str(found.get("@type")) and found["services"]
    ]
    assert transcoded == [set(served)]


def every_object(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in every_object(item))]
    if isinstance(value, list):
        return [found for item in value for found in every_object(item)]
    return []
