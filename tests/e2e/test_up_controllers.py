"""`tokenmesh up --controllers 2`: one of them dies, and everything goes on with the other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from services.cli.up.notice import MeshNotice
from tests.e2e.local_meshes import SCRIPTED, run, starting


def ask(mesh: MeshNotice) -> int:
    body = {"model": mesh.models[0], "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(f"{mesh.base_url}/chat/completions", json=body, timeout=60).status_code


def test_commands_and_requests_outlive_a_controller(folder: Path) -> None:
    options = (*SCRIPTED, "--controllers", "2", "--keep-going")
    with starting(folder, *options) as up:
        mesh = up.until_ready()
        first, second = (each for each in mesh.processes if each.job == "controller")
        assert (first.name, second.name) == ("controller-1", "controller-2")
        assert ask(mesh) == 200

        os.kill(first.process_id, signal.SIGKILL)
        up.process.until(
            "the loss was told",
            lambda: "The mesh goes on with 1 of its controllers." in up.process.log(),
        )
        assert ask(mesh) == 200
        # The commands find the mesh by its folder, and in it the controller that is left.
        listed = run("workers", folder=folder)
        assert listed.returncode == 0, listed.stderr
        assert "worker-1" in listed.stdout
        drained = run("drain", "worker-1", folder=folder)
        assert drained.returncode == 0, drained.stderr
        both = f"{first.address},{second.address}"
        resumed = run("resume", "worker-1", "--controller", both, folder=folder)
        assert resumed.stdout == "worker-1 serves.\n", resumed.stderr
        assert ask(mesh) == 200
