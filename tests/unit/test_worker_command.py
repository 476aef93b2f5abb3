"""The worker's command line: what its options become, and what it refuses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from services.mesh import process
from services.mesh.errors import StartError
from services.mesh.options import program
from services.worker import server
from services.worker.command import worker
from services.worker.engines.scripted import Pace, ScriptedSettings
from services.worker.engines.settings import EngineSettings
from services.worker.settings import WorkerSettings

Settings = Callable[..., WorkerSettings]


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a command line makes of the settings, without a worker being started."""
    seen: list[WorkerSettings] = []

    def run_service(service: str, serve: Callable[[asyncio.Event], Any], **_: object) -> None:
        assert service == "worker"
        serve(asyncio.Event())

    monkeypatch.setattr(process, "run_service", run_service)
    monkeypatch.setattr(server, "serve", lambda settings, stop: seen.append(settings))

    def settings(*options: str, env: dict[str, str] | None = None) -> WorkerSettings:
        CliRunner().invoke(program(worker), options, env=env, catch_exceptions=False)
        return seen.pop()

    return settings


def test_defaults(settings_of: Settings) -> None:
    settings = settings_of("--model", "folder")
    assert settings == WorkerSettings(EngineSettings("folder"))
    assert settings_of("--engine", "scripted") == WorkerSettings(ScriptedSettings())


def test_options_of_the_transformers_engine(settings_of: Settings) -> None:
    settings = settings_of(
        *("--model-path", "org/name", "--model-names", "a, b", "--device", "cuda:1"),
        *("--dtype", "bfloat16", "--revision", "main", "--limit-worker-concurrency", "4"),
        *("--max-waiting", "5", "--context-length", "600", "--threads", "3"),
        *("--kv-memory-mib", "2"),
    )
    assert settings.engine == EngineSettings(
        model_path="org/name",
        model_names=("a", "b"),
        revision="main",
        device="cuda:1",
        dtype="bfloat16",
        max_running=4,
        max_waiting=5,
        context_length_tokens=600,
        kv_memory_bytes=2 * 1024 * 1024,
        threads=3,
    )


def test_options_of_the_scripted_engine(settings_of: Settings) -> None:
    settings = settings_of(
        *("--engine", "scripted", "--scripted-prefill-ms", "5", "--max-running", "7"),
        *("--scripted-prefill-token-ms", "0.5", "--scripted-token-interval-ms", "20"),
        *("--scripted-answer-tokens", "9", "--scripted-kv-tokens", "1000"),
    )
    assert settings.engine == ScriptedSettings(
        pace=Pace(0.005, 0.0005, 0.02, 9), max_running=7, kv_total_tokens=1000
    )


def test_options_of_the_worker(settings_of: Settings) -> None:
    settings = settings_of(
        *("--engine", "scripted", "--controller", "a:1", "--controller", "b:2"),
        *("--worker-address", "me:3", "--labels", "zone=a", "--speed", "2"),
        *("--worker-id", "w", "--grace-period", "4", "--trust-request-chat-template"),
        *("--host", "0.0.0.0", "--port", "0"),
    )
    assert settings == WorkerSettings(
        ScriptedSettings(),
        host="0.0.0.0",
        port=0,
        controllers=("a:1", "b:2"),
        worker_id="w",
        advertise_address="me:3",
        labels={"zone": "a"},
        speed=2.0,
        grace_period_s=4.0,
        may_bring_template=True,
    )
    assert settings_of("--engine", "scripted", "--no-register").controllers == ()


def test_the_environment_sets_options_too(settings_of: Settings) -> None:
    settings = settings_of(
        env={"TOKENMESH_WORKER_ENGINE": "scripted", "TOKENMESH_WORKER_CONTROLLER": "a:1 b:2"}
    )
    assert settings.controllers == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--model-path is missing"),
        (("--model-path", "x", "--device", "abacus"), "abacus"),
        (("--model-path", "x", "--kv-memory-mib", "0"), "kv_memory_bytes is 0"),
        (("--engine", "scripted", "--speed", "0"), "--speed is 0"),
        (("--engine", "scripted", "--controller", "nowhere"), "--controller is 'nowhere'"),
        (("--engine", "scripted", "--labels", "zone"), "--labels holds 'zone'"),
        (("--engine", "scripted", "--port", "70000"), "--port is 70000"),
        (("--engine", "scripted", "--limit-worker-concurrency", "0"), "--limit-worker-concurrency"),
        (("--engine", "scripted", "--scripted-prefill-ms", "-1"), "--scripted-prefill-ms"),
        (("--engine", "scripted", "--scripted-kv-tokens", "0"), "--scripted-kv-tokens"),
        (("--engine", "scripted", "--model-names", "a,,b"), "--model-names"),
    ],
)
def test_what_cannot_be_stops_the_start(
    settings_of: Settings, options: tuple[str, ...], says: str
) -> None:
    with pytest.raises(StartError, match=says):
        settings_of(*options)


def test_the_command_line_loads_no_engine() -> None:
    """So that --help of all commands comes at once."""
    code = (
        "import sys, services.worker.command; "
        "sys.exit(bool({'torch', 'transformers', 'grpc'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
