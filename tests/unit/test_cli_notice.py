from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from services.cli.up import announcement, notice
from services.cli.up.notice import MeshNotice, ProcessNotice


def process(name: str, job: str, port: int) -> ProcessNotice:
    return ProcessNotice(
        name=name,
        job=job,
        process_id=1,
        address=f"127.0.0.1:{port}",
        metrics_address=f"127.0.0.1:{port + 1}",
        metrics_path="/stats/prometheus" if job == "envoy" else "/metrics",
        log_file=f"/run/{name}.log",
    )


def mesh(process_id: int, port: int = 8000) -> MeshNotice:
    return MeshNotice(
        process_id=process_id,
        base_url=f"http://127.0.0.1:{port}/v1",
        grpc_address=f"127.0.0.1:{port}",
        models=("org/it's a model",),
        run_folder="/run",
        processes=(process("controller", "controller", 100), process("envoy", "envoy", port)),
    )


def ended_process_id() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        return ended.pid


def test_a_notice_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = mesh(os.getpid())
    notice.write_notice(tmp_path / "mesh.json", written)
    assert notice.read_notice(tmp_path / "mesh.json") == written
    assert [file.name for file in tmp_path.iterdir()] == ["mesh.json"]


def test_no_notice(tmp_path: Path) -> None:
    assert notice.read_notice(tmp_path / "mesh.json") is None


def test_the_newest_mesh_that_runs_is_found_from_a_folder_below(tmp_path: Path) -> None:
    for number, process_id in enumerate((os.getpid(), os.getpid(), ended_process_id())):
        file = tmp_path / ".run" / str(number) / "mesh.json"
        file.parent.mkdir(parents=True)
        notice.write_notice(file, mesh(process_id, port=9000 + number))
        os.utime(file, (number, number))
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    found = [each.base_url for each in notice.running_meshes(below)]
    assert found == ["http://127.0.0.1:9001/v1", "http://127.0.0.1:9000/v1"]


def test_prometheus_finds_each_process_under_its_job(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    notice.write_prometheus_targets(file, mesh(1).processes)
    assert json.loads(file.read_text()) == [
        {
            "targets": ["127.0.0.1:101"],
            "labels": {
                "job": "controller",
                "process": "controller",
                "__metrics_path__": "/metrics",
            },
        },
        {
            "targets": ["127.0.0.1:8001"],
            "labels": {
                "job": "envoy",
                "process": "envoy",
                "__metrics_path__": "/stats/prometheus",
            },
        },
    ]


def test_the_curl_line_survives_a_shell() -> None:
    echoed = subprocess.run(
        ["/bin/sh", "-c", announcement.curl_line(mesh(1)).replace("curl", "printf '%s\\n'", 1)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert echoed[0] == "http://127.0.0.1:8000/v1/chat/completions"
    assert json.loads(echoed[-1])["model"] == "org/it's a model"
