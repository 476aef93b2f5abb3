"""The measuring of GPUs, at a size that a CPU can bear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import main


def test_refuses_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        main([], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tiny_run_keeps_what_it_measured(tmp_path: Path) -> None:
    main(["--tiny"], folder=tmp_path)
    (file,) = tmp_path.glob("*-gpu.json")
    kept = json.loads(file.read_text())
    assert [(run["who"], run["batch"]) for run in kept["runs"]] == [
        ("generate", 1),
        ("generate", 3),
        ("TokenMesh", 1),
        ("TokenMesh", 3),
    ]
    assert kept["absent"] == {}
    assert all(run["step_s"] > 0 for run in kept["runs"])
    # In float32 a seeded sequence makes the same tokens in any batch.
    assert kept["equal_tokens"] == {"1": kept["steps"], "3": kept["steps"]}
    report = file.with_suffix(".md").read_text()
    assert f"among 3: {kept['steps']} of {kept['steps']}" in report
