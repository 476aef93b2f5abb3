"""`tokenmesh up` as its users see it: real processes, real Envoy, the scripted engine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.local_meshes import SCRIPTED, Up, run, starting
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.timeout(240)


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def assert_nothing_left(mesh: MeshNotice) -> None:
    """No process and no port of the mesh."""
    assert [each.name for each in mesh.processes if is_running(each.process_id)] == []
    ports = {each.address for each in mesh.processes}
    ports |= {each.metrics_address for each in mesh.processes}
    assert [port for port in sorted(ports) if accepts(port)] == []


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with starting(tmp_path, *SCRIPTED) as started:
        yield started


def ask(mesh: MeshNotice) -> str:
    """The answer to the curl line that was printed, run by a shell."""
    body = {"model": mesh.models[0], "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"{mesh.base_url}/chat/completions",
        json.dumps({**body, "max_tokens": 4}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    return str(answer["choices"][0]["message"]["content"])


def test_the_printed_curl_line_works_when_pasted(up: Up) -> None:
    up.until_ready()
    (line,) = [line for line in up.process.log().splitlines() if line.startswith("curl ")]
    answer = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["role"] == "assistant"


def test_it_tells_where_everything_is(up: Up) -> None:
    mesh = up.until_ready()
    assert sorted(each.job for each in mesh.processes) == [
        "controller",
        "envoy",
        "gateway",
        "worker",
    ]
    for process in mesh.processes:
        assert is_running(process.process_id)
        url = f"http://{process.metrics_address}{process.metrics_path}"
        assert url in up.process.log()
        with urllib.request.urlopen(url, timeout=60) as response:
            assert b"# TYPE" in response.read()
    targets = json.loads((Path(mesh.run_folder) / "prometheus-targets.json").read_text())
    assert [each["targets"] for each in targets] == [
        [each.metrics_address] for each in mesh.processes
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_of_it(up: Up, number: signal.Signals) -> None:
    mesh = up.until_ready()
    up.process.send(number)
    assert up.process.wait() == 0
    assert_nothing_left(mesh)
    assert not up.ready_file.exists()
    assert up.process.log().count("Stopped.") == 1
    assert "killed" not in up.process.log()
    assert "Traceback" not in up.process.log()


def test_signals_that_come_twice_end_it_once(up: Up) -> None:
    mesh = up.until_ready()
    # What a terminal and a program around it do together.
    for _ in range(3):
        os.killpg(up.process.process_id, signal.SIGINT)
        os.killpg(up.process.process_id, signal.SIGTERM)
    assert up.process.wait() == 0
    assert_nothing_left(mesh)
    assert up.process.log().count("Stopped.") == 1
    assert "killed" not in up.process.log()


def test_a_signal_ends_it_while_it_starts(up: Up) -> None:
    wait_for("something starts", lambda: "controller" in up.process.log())
    up.process.send(signal.SIGINT)
    assert up.process.wait() == 0
    assert "Traceback" not in up.process.log()
    assert not up.ready_file.exists()


def test_an_answer_that_goes_on_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    slow = ("--", "--scripted-token-interval-ms", "1000")
    with starting(tmp_path, *SCRIPTED, *slow) as up:
        mesh = up.until_ready()
        body = {
            "model": mesh.models[0],
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 100,
            "stream": True,
        }
        request = urllib.request.Request(
            f"{mesh.base_url}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.readline().startswith(b"data:")
            up.process.send(signal.SIGTERM)
            assert up.process.wait() == 0
        assert_nothing_left(mesh)
        assert "killed" not in up.process.log()


@pytest.mark.parametrize("job", ["worker", "gateway", "controller", "envoy"])
def test_a_process_that_dies_is_named_and_the_rest_ends(up: Up, job: str) -> None:
    mesh = up.until_ready()
    victim = next(each for each in mesh.processes if each.job == job)
    os.kill(victim.process_id, signal.SIGKILL)
    assert up.process.wait() == 1
    assert_nothing_left(mesh)
    assert f"{victim.name} was ended by SIGKILL." in up.process.log()
    assert "Traceback" not in up.process.log()
    if job != "envoy":
        _, _, tail = up.process.log().partition(f"The end of its log, {victim.log_file}:")
        assert victim.address in tail


def test_with_keep_going_it_ends_with_its_last_worker(tmp_path: Path) -> None:
    with starting(tmp_path, *SCRIPTED, "--workers", "2", "--keep-going") as up:
        mesh = up.until_ready()
        first, last = (each for each in mesh.processes if each.job == "worker")
        os.kill(first.process_id, signal.SIGKILL)
        wait_for("the loss is told", lambda: f"{first.name} was ended by" in up.process.log())
        for _ in range(4):
            assert ask(mesh)
        os.kill(last.process_id, signal.SIGKILL)
        assert up.process.wait() == 1
        assert_nothing_left(mesh)
        assert f"{last.name} was ended by SIGKILL." in up.process.log()


def test_nothing_outlives_a_kill_of_tokenmesh_itself(up: Up) -> None:
    mesh = up.until_ready()
    up.process.send(signal.SIGKILL)
    assert up.process.wait() == -signal.SIGKILL
    wait_for(
        "all processes have ended",
        lambda: not any(is_running(each.process_id) for each in mesh.processes),
    )
    assert_nothing_left(mesh)


def test_two_meshes_run_side_by_side(tmp_path: Path) -> None:
    with (
        starting(tmp_path / "one", *SCRIPTED, "--model-names", "one") as first,
        starting(tmp_path / "two", *SCRIPTED, "--model-names", "two", "--workers", "2") as second,
    ):
        one, two = first.until_ready(), second.until_ready()
        assert (one.models, two.models) == (("one",), ("two",))
        assert ask(one)
        assert ask(two)
        first.process.send(signal.SIGTERM)
        assert first.process.wait() == 0
        assert_nothing_left(one)
        assert ask(two)
        second.process.send(signal.SIGTERM)
        assert second.process.wait() == 0
        assert_nothing_left(two)


def test_verbose_shows_the_logs_as_they_come(tmp_path: Path) -> None:
    with starting(tmp_path, *SCRIPTED, "--verbose") as up:
        up.until_ready()

        def those_who_listen() -> set[str]:
            return set(re.findall(r"^(\S+) \| .*listening", up.process.log(), re.MULTILINE))

        expected = {"controller", "worker-1", "gateway"}
        wait_for("all logs are shown", lambda: those_who_listen() == expected)


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = run("up", *SCRIPTED, "--port", str(port), "--run-dir", str(tmp_path / "run"))
    assert result.returncode == 2
    assert result.stderr == f"tokenmesh: port {port} is taken: choose another with --port\n"
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--model", "/nowhere/model"], r"model folder /nowhere/model does not exist"),
        (["--device", "quantum"], r"unknown device 'quantum': choose from auto, cpu, .*"),
        (["--dtype", "int3"], r"unknown dtype 'int3': choose from auto, float32, .*"),
        (["--load-8bit", "--load-4bit"], r"weights can be shrunk in one way: .*"),
        (["--engine", "abacus"], r"unknown engine 'abacus': choose from .*"),
        (["nonsense"], r"unexpected argument 'nonsense': .*"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_one_line(
    tmp_path: Path, options: list[str], line: str
) -> None:
    result = run("up", "--port", "0", "--run-dir", str(tmp_path / "run"), *options)
    assert result.returncode == 2
    assert re.fullmatch(f"tokenmesh: {line}\n", result.stderr)
    assert result.stdout == ""


def test_what_a_worker_refuses_is_one_line(tmp_path: Path) -> None:
    with starting(tmp_path, *SCRIPTED, "--", "--max-running", "0") as up:
        assert up.process.wait() == 2
        (line,) = [line for line in up.process.log().splitlines() if "cannot start" in line]
        assert line.startswith("worker-1 cannot start: --limit-worker-concurrency is 0")
        assert "Traceback" not in up.process.log()


def test_the_demo_model_is_the_default(tmp_path: Path) -> None:
    with starting(tmp_path) as up:
        mesh = up.until_ready()
        assert mesh.models == ("tokenmesh-demo",)
        assert ask(mesh)
        up.process.send(signal.SIGTERM)
        assert up.process.wait() == 0
        assert_nothing_left(mesh)
