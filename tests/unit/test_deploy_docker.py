"""The images build from files that exist, and start services with options that they know."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from dockerfile_parse import DockerfileParser

from services.mesh.options import program

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
SERVICES = ("controller", "worker", "gateway")
BIN = Path(sys.executable).parent


def instructions() -> list[dict[str, Any]]:
    return [dict(each) for each in DockerfileParser(str(DOCKERFILE)).structure]


def stages() -> dict[str, list[dict[str, Any]]]:
    """The instructions of each stage, those of the stages that it is made from included."""
    found: dict[str, list[dict[str, Any]]] = {}
    current: list[dict[str, Any]] = []
    for instruction in instructions():
        if instruction["instruction"] == "FROM":
            base, _, name = instruction["value"].partition(" AS ")
            current = [*found.get(base, [])]
            found[name] = current
        current.append(instruction)
    return found


def last_value(stage: str, kind: str) -> str:
    values = [each["value"] for each in stages()[stage] if each["instruction"] == kind]
    assert values, f"{stage} has no {kind}"
    return str(values[-1])


def command_of(service: str) -> Any:
    """The service's command line, from the function that runs it."""
    module = importlib.import_module(f"services.{service}.command")
    return typer.main.get_command(program(getattr(module, service)))


def compose_services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def command_lines() -> list[tuple[str, list[str]]]:
    """Service and arguments, as the images and compose start them."""
    lines = [(name, json.loads(last_value(name, "CMD"))) for name in SERVICES]
    for service in compose_services().values():
        target = service.get("build", {}).get("target")
        if target is not None:
            lines.append((target, service["command"]))
    return lines


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = {
        line[1:].removesuffix("/**")
        for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied: set[str] = set()
    for instruction in instructions():
        if instruction["instruction"] == "COPY" and "--from" not in instruction["value"]:
            *sources, _target = instruction["value"].split()
            copied |= set(sources)
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_runs_its_service_without_root_and_is_health_checked(service: str) -> None:
    assert json.loads(last_value(service, "ENTRYPOINT")) == ["python", "-m", f"services.{service}"]
    user, _, group = last_value(service, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    command = json.loads(last_value(service, "CMD"))
    port = command[command.index("--port") + 1]
    assert last_value(service, "HEALTHCHECK").endswith(f'"127.0.0.1:{port}"]')


@pytest.mark.parametrize(("service", "arguments"), command_lines())
def test_a_service_knows_the_options_it_is_started_with(service: str, arguments: list[str]) -> None:
    command_of(service).make_context(service, list(arguments))


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_option_would_be_noticed(service: str) -> None:
    with pytest.raises(Exception, match="No such option"):
        command_of(service).make_context(service, ["--no-such-option", "x"])


@pytest.mark.parametrize("service", ["controller", "gateway"])
def test_a_light_service_loads_no_model_library(service: str) -> None:
    code = (
        f"import sys, services.{service}.server, services.{service}.command; "
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
