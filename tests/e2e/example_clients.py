"""Builds the programs of examples/clients from proto/ alone, and runs them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.proto import google_protos
from tests.e2e.processes import install_node_packages

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
CLIENTS = ROOT / "examples" / "clients"
BUILDS = ROOT / "build" / "clients"
PROTO_FOLDERS = ("mesh", "gateway")
"""Those that clients are made from."""

BUILD_LIMIT_S = 300.0
RUN_LIMIT_S = 60.0


@dataclass(frozen=True)
class ExampleClient:
    """How a user builds and runs the client in one language."""

    language: str
    run: Sequence[str]
    build: Sequence[str] = ()
    is_node_package: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


CLIENTS_BY_LANGUAGE = {
    client.language: client
    for client in (
        ExampleClient(
            "python",
            run=(sys.executable, "chat.py"),
            build=("./build.sh",),
            environment={"PYTHON": sys.executable, "PYTHONPATH": "build"},
        ),
        ExampleClient("node", run=("node", "chat.js"), is_node_package=True),
        ExampleClient("go", run=("build/chat",), build=("./build.sh",)),
        ExampleClient(
            "cpp",
            run=("build/chat",),
            build=("make", "-j2", "CXXFLAGS=-O0"),
            environment={"GOOGLEAPIS": str(google_protos())},
        ),
    )
}

PAGE = ExampleClient("browser", run=(), build=("./build.sh",), is_node_package=True)


def built(client: ExampleClient) -> Path:
    """The folder of the client, built where there is nothing of this project but it and the protos.

    A build is kept for as long as neither changes.
    """
    sources = CLIENTS / client.language
    name = f"{client.language}-{_fingerprint(sources)}"
    root = BUILDS / name
    folder = root / "examples" / "clients" / client.language
    if not (root / "done").exists():
        for old in BUILDS.glob(f"{client.language}-*"):
            shutil.rmtree(old)
        for each in PROTO_FOLDERS:
            shutil.copytree(PROTO / "tokenmesh" / each, root / "proto" / "tokenmesh" / each)
        for file in _tracked(sources):
            target = folder / file.relative_to(sources)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        if client.is_node_package:
            install_node_packages(folder)
        if client.build:
            _checked(client, client.build, folder, BUILD_LIMIT_S)
        (root / "done").touch()
    return folder


def output_of(
    client: ExampleClient, *arguments: str, api_key: str | None = None, exit_code: int = 0
) -> list[str]:
    """The lines that the client prints; it is built where it is not."""
    folder = built(client)
    if api_key is not None:
        environment = {**client.environment, "TOKENMESH_API_KEY": api_key}
        client = replace(client, environment=environment)
    command = (*client.run, *arguments)
    return _checked(client, command, folder, RUN_LIMIT_S, exit_code).splitlines()


def _checked(
    client: ExampleClient,
    command: Sequence[str],
    folder: Path,
    limit_s: float,
    exit_code: int = 0,
) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **client.environment},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def _tracked(folder: Path) -> list[Path]:
    """What is not made by building."""
    made = {"build", "node_modules"}
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not made & set(file.relative_to(folder).parts)]


def _fingerprint(sources: Path) -> str:
    digest = hashlib.sha256()
    protos = (file for each in PROTO_FOLDERS for file in _tracked(PROTO / "tokenmesh" / each))
    for file in (*protos, *_tracked(sources)):
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
