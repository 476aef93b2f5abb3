"""The options of the services: which environment variables set them, and what they are by default.

The names of the variables are public: compose files and unit files of others hold them.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from services.cli.main import app
from services.controller.settings import ControllerSettings
from services.gateway.settings import GatewaySettings
from services.mesh import process
from services.mesh.options import program

# For every service, the end of each variable's name, and a value that is not the default.
SHARED = {
    "HOST": "0.0.0.0",
    "PORT": "7",
    "METRICS_PORT": "8",
    "ALLOW_ANONYMOUS": "1",
    "READY_FILE": "ready.json",
    "LOG_LEVEL": "error",
    "LOG_FORMAT": "json",
}
VARIABLES = {
    "controller": SHARED
    | {
        "ID": "c",
        "LEASE_TTL": "9",
        "HEARTBEAT_INTERVAL": "3",
        "DIAL_LIMIT": "1",
        "COMMAND_LIMIT": "1",
        "ADAPTER_LIMIT": "1",
        "MAX_WORKERS": "1",
        "MAX_WATCHERS": "1",
    },
    "worker": SHARED
    | {
        "MODEL_PATH": "org/name",
        "MODEL_NAMES": "a,b",
        "ENGINE": "scripted",
        "DEVICE": "cuda:1",
        "DTYPE": "float16",
        "REVISION": "main",
        "CHAT_TEMPLATE": "chat.jinja",
        "CHAT_FORMAT": "hermes",
        "TRUST_REQUEST_CHAT_TEMPLATE": "1",
        "THREADS": "3",
        "CONTROLLER": "a:1 b:2",
        "NO_REGISTER": "true",
        "ADVERTISE_ADDRESS": "me:3",
        "WORKER_ID": "w",
        "LABELS": "zone=a",
        "SPEED": "2",
        "MAX_RUNNING": "4",
        "MAX_WAITING": "5",
        "CONTEXT_LENGTH": "600",
        "ALLOW_PICKLE": "1",
        "TRUST_REMOTE_CODE": "1",
        "QUANTIZATION": "int8",
        "LOAD_8BIT": "1",
        "LOAD_4BIT": "1",
        "GPUS": "0,1",
        "NUM_GPUS": "2",
        "MAX_GPU_MEMORY": "9GiB",
        "MAX_CPU_MEMORY": "9GiB",
        "CPU_OFFLOAD": "1",
        "OFFLOAD_FOLDER": "offload",
        "GPU_MEMORY_UTILIZATION": "0.5",
        "NO_CUDA_GRAPHS": "1",
        "KV_CACHE_MEMORY": "2GiB",
        "HUNG_STEP": "9",
        "GRACE_PERIOD": "4",
        "POOLING": "cls",
        "BATCH_TOKENS": "512",
        "EMBED_IN_TRUNCATE": "1",
        "SCRIPTED_PREFILL_MS": "5",
        "SCRIPTED_PREFILL_TOKEN_MS": "0.5",
        "SCRIPTED_TOKEN_INTERVAL_MS": "20",
        "SCRIPTED_ANSWER_TOKENS": "9",
        "SCRIPTED_REPEATS": "1",
        "SCRIPTED_KV_TOKENS": "1000",
    },
    "gateway": SHARED
    | {
        "CONTROLLER": "a:1 b:2",
        "REUSE_PORT": "1",
        "ID": "g",
        "PUBLISHED_ADDRESS": "127.0.0.2",
        "API_KEYS": "first,second",
        "API_KEYS_FILE": "keys.yaml",
        "ROUTING_POLICY": "lottery",
        "AFFINITY_LOAD_FACTOR": "2",
        "AFFINITY_FREE_REQUESTS": "1",
        "MAX_ATTEMPTS": "1",
        "MAX_LOSSES": "1",
        "RESUME_WAIT": "1",
        "HUNG_AFTER": "1",
        "POISON_DEATHS": "1",
        "QUARANTINE": "1",
        "BREAKER_FAULTS": "1",
        "BREAKER_BACKOFF": "1",
        "FORGET_AFTER": "1",
        "MAX_REQUESTS": "1",
        "MAX_WAITING": "1",
        "MAX_WAIT": "1",
        "MAX_REQUESTS_PER_CALLER": "1",
        "MAX_CONVERSATIONS": "1",
        "REQUEST_TIMEOUT": "1",
        "CREDIT_WINDOW": "2",
        "RESPONSES_DB": "responses.sqlite",
        "RESPONSES_MAX": "1",
        "RESPONSES_MAX_BYTES": "2097152",
        "RESPONSES_TTL": "60",
        "RESPONSES_MAX_BACKGROUND": "1",
        "GRACE_PERIOD": "4",
    },
}
# Of the gateway, `tokenmesh up` and `tokenmesh keys` alike.
SHARED_BY_COMMANDS = {"API_KEYS", "API_KEYS_FILE"}
CASES = [
    pytest.param(service, end, value, id=f"{service}-{end}")
    for service, variables in VARIABLES.items()
    for end, value in variables.items()
]
TOKENMESH: Any = typer.main.get_command(app)

Read = Callable[[str], Any]


def variable_of(service: str, end: str) -> str:
    return f"TOKENMESH_{end}" if end in SHARED_BY_COMMANDS else f"TOKENMESH_{service.upper()}_{end}"


@pytest.fixture(autouse=True)
def _environment_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TOKENMESH_"):
            monkeypatch.delenv(name)


def function_of(service: str) -> Callable[..., None]:
    module = importlib.import_module(f"services.{service}.command")
    function: Callable[..., None] = getattr(module, service)
    return function


def read_by_module(service: str) -> Any:
    """What `python -m services.NAME` makes of the environment."""
    command: Any = typer.main.get_command(program(function_of(service)))
    return command.make_context(service, [])


def read_by_tokenmesh(name: str) -> Any:
    """What `tokenmesh NAME` makes of the environment."""
    group = TOKENMESH.make_context("tokenmesh", [], resilient_parsing=True)
    return TOKENMESH.commands[name].make_context(name, [], parent=group, resilient_parsing=True)


def from_environment(context: Any) -> dict[str, Any]:
    """The options that the environment has set, by the parameter's name."""
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name).name == "ENVIRONMENT"
    }


@pytest.mark.parametrize("read", [read_by_module, read_by_tokenmesh])
@pytest.mark.parametrize(("service", "end", "value"), CASES)
def test_a_variable_sets_the_option_of_its_name(
    service: str, end: str, value: str, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = read(service).params
    monkeypatch.setenv(variable_of(service, end), value)
    context = read(service)
    ((name, found),) = from_environment(context).items()
    assert found != usual[name]
    (parameter,) = (each for each in context.command.params if each.name == name)
    assert f"--{end.lower().replace('_', '-')}" in parameter.opts


@pytest.mark.parametrize("service", VARIABLES)
def test_every_option_has_a_variable(service: str) -> None:
    assert len(read_by_module(service).command.params) == len(VARIABLES[service])


@pytest.mark.parametrize("service", VARIABLES)
def test_the_help_of_the_module_names_the_variables(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{service}", "--help"],
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    )
    for end in VARIABLES[service]:
        assert f"[env var: {variable_of(service, end)}]" in done.stdout


@pytest.mark.parametrize("command", ["up", "gateway"])
def test_no_help_shows_a_key(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", command, "--help"],
        env={**os.environ, "COLUMNS": "300", "TOKENMESH_API_KEYS": "hunter2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--api-keys" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_variables_of_a_service_set_nothing_of_another_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service, variables in VARIABLES.items():
        for end, value in variables.items():
            monkeypatch.setenv(variable_of(service, end), value)
    for name in TOKENMESH.commands:
        read = from_environment(read_by_tokenmesh(name))
        own = len(SHARED_BY_COMMANDS) if name == "up" else 0
        assert len(read) == len(VARIABLES.get(name, ())) + own


@pytest.mark.parametrize(
    ("variable", "commands"),
    [
        ("TOKENMESH_URL", {"chat", "models"}),
        ("TOKENMESH_API_KEYS", {"up", "gateway"}),
        ("TOKENMESH_CONTROLLER", {"workers", "drain", "resume"}),
        ("TOKENMESH_UP_MODEL", {"up"}),
        ("TOKENMESH_UP_LOG_LEVEL", {"up"}),
    ],
)
def test_a_variable_of_other_commands_sets_no_service(
    variable: str, commands: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "error")
    assert {name for name in TOKENMESH.commands if from_environment(read_by_tokenmesh(name))} == (
        commands
    )


@pytest.mark.parametrize(
    ("service", "settings"), [("controller", ControllerSettings), ("gateway", GatewaySettings)]
)
def test_the_defaults_are_those_of_the_settings(
    service: str, settings: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_service(_: str, serve: Callable[[asyncio.Event], None], **__: object) -> None:
        serve(asyncio.Event())

    seen: list[object] = []
    monkeypatch.setattr(process, "run_service", run_service)
    monkeypatch.setattr(f"services.{service}.server.serve", lambda made, stop: seen.append(made))
    function_of(service)()
    assert seen == [settings()]
