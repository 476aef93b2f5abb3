"""What `tokenmesh up` passes on to its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.up import mesh_life, plan


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ((), ()),
        (("--dtype", "float32"), ("--dtype", "float32")),
        (("--load-8bit", "--gpus", "0,1"), ("--load-8bit", "--gpus", "0,1")),
        (("--load-4bit", "--", "--num-gpus", "1"), ("--load-4bit", "--num-gpus", "1")),
    ],
)
def test_options_of_the_weights_reach_the_workers(
    options: tuple[str, ...],
    passed: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[plan.MeshOptions] = []

    async def run(options: plan.MeshOptions, *_: Any, **__: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(mesh_life, "run", run)
    base = ("up", "--engine", "scripted", "--port", "0", "--run-dir", str(tmp_path))
    result = CliRunner().invoke(app, [*base, *options], catch_exceptions=False)
    assert result.exit_code == 0
    (mesh,) = seen
    assert mesh.worker_options == passed
    (worker,) = plan.workers(mesh, ["127.0.0.1:1"])
    assert worker.command[len(worker.command) - len(passed) :] == passed
