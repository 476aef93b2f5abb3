"""The worker's command line: what its options become, and what it refuses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.mesh import process
from services.mesh.errors import StartError
from services.mesh.options import program
from services.worker import engine_choice, server
from services.worker.chat_formats.names import by_name
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
    # What the names stand for is not there, and no hub is asked.
    monkeypatch.setattr(
        engine_choice, "recognize_engine", lambda model_path, revision: "transformers"
    )
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
        *("--kv-cache-memory", "2MiB", "--gpu-memory-utilization", "0.5", "--no-cuda-graphs"),
        *("--load-8bit", "--gpus", "0, 2", "--num-gpus", "2", "--max-gpu-memory", "13Gib"),
        *("--cpu-offload", "--max-cpu-memory", "1.5 GB", "--offload-folder", "there"),
        *("--allow-pickle", "--trust-remote-code", "--chat-format", "hermes"),
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
        gpu_memory_utilization=0.5,
        cuda_graphs=False,
        threads=3,
        quantization="8bit",
        gpus=("0", "2"),
        num_gpus=2,
        max_gpu_memory_bytes=13 * 1024**3,
        cpu_offload=True,
        max_cpu_memory_bytes=1_500_000_000,
        offload_folder=Path("there"),
        allow_pickle=True,
        trust_remote_code=True,
        chat_format="hermes",
    )


@pytest.mark.parametrize(
    ("options", "quantization"),
    [
        ((), None),
        (("--quantization", "int8"), "int8"),
        (("--quantization", "none"), "none"),
        (("--load-4bit",), "4bit"),
        (("--load-8bit", "--quantization", "8bit"), "8bit"),
    ],
)
def test_ways_to_shrink_weights(
    settings_of: Settings, options: tuple[str, ...], quantization: str | None
) -> None:
    assert settings_of("--model", "m", *options).engine == EngineSettings(
        "m", quantization=quantization
    )


def test_variables_of_the_engine(settings_of: Settings) -> None:
    settings = settings_of(
        env={
            "TOKENMESH_WORKER_MODEL_PATH": "m",
            "TOKENMESH_WORKER_LOAD_4BIT": "1",
            "TOKENMESH_WORKER_KV_CACHE_MEMORY": "1KiB",
            "TOKENMESH_WORKER_GPUS": "3",
        }
    )
    assert settings.engine == EngineSettings(
        "m", quantization="4bit", kv_memory_bytes=1024, gpus=("3",)
    )


def test_options_of_the_scripted_engine(settings_of: Settings) -> None:
    settings = settings_of(
        *("--engine", "scripted", "--scripted-prefill-ms", "5", "--max-running", "7"),
        *("--scripted-prefill-token-ms", "0.5", "--scripted-token-interval-ms", "20"),
        *("--scripted-answer-tokens", "9", "--scripted-kv-tokens", "1000"),
        *("--scripted-repeats", "--chat-format", "qwen3"),
    )
    assert settings.engine == ScriptedSettings(
        pace=Pace(0.005, 0.0005, 0.02, 9),
        max_running=7,
        kv_total_tokens=1000,
        repeats=True,
        chat_format=by_name("qwen3"),
    )


def test_options_of_the_worker(settings_of: Settings) -> None:
    settings = settings_of(
        *("--engine", "scripted", "--controller", "a:1", "--controller", "b:2"),
        *("--worker-address", "me:3", "--labels", "zone=a", "--speed", "2"),
        *("--worker-id", "w", "--grace-period", "4", "--trust-request-chat-template"),
        *("--host", "0.0.0.0", "--allow-anonymous", "--port", "0"),
    )
    assert settings == WorkerSettings(
        ScriptedSettings(),
        host="0.0.0.0",
        allow_anonymous=True,
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
        (("--model-path", "x", "--kv-cache-memory", "0"), "--kv-cache-memory is '0'"),
        (("--model-path", "x", "--kv-cache-memory", "-1GiB"), "--kv-cache-memory is '-1GiB'"),
        (("--model-path", "x", "--max-gpu-memory", "4 bananas"), "--max-gpu-memory .* unit"),
        (("--model-path", "x", "--max-cpu-memory", ""), "--max-cpu-memory is ''"),
        (("--model-path", "x", "--gpu-memory-utilization", "1.1"), "utilization is 1.1: .*most 1"),
        (("--model-path", "x", "--gpus", "0,,1"), "--gpus holds ''"),
        (("--model-path", "x", "--num-gpus", "0"), "num_gpus is 0"),
        (("--model-path", "x", "--load-8bit", "--load-4bit"), "8bit and 4bit"),
        (("--model-path", "x", "--quantization", "3bit"), "3bit.*choose from none, int8"),
        (("--model-path", "x", "--chat-format", "y"), "chat format 'y': choose from auto, .*qwen3"),
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
