"""Meshes that whole test files share: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.notice import MeshNotice
from tests.e2e.processes import running_mesh

SCRIPTED_MODEL = "org/scripted"


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """Two workers with the scripted engine, which answers at once. Shared: do not break it."""
    options = ("--engine", "scripted", "--model-names", SCRIPTED_MODEL, "--workers", "2")
    with running_mesh(tmp_path_factory.mktemp("mesh"), *options) as notice:
        yield notice


@pytest.fixture(scope="session")
def demo_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """What a plain `tokenmesh up` starts: the demo model. Shared: do not break it."""
    with running_mesh(tmp_path_factory.mktemp("demo-mesh")) as notice:
        yield notice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for the processes of one test."""
    return tmp_path
