"""Meshes that whole test files share: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.processes import running_mesh, wait_for
from tests.encoders import encoder
from tests.models import checkpoint

SCRIPTED_MODEL = "org/scripted"
CHAT_MODEL = "my-chat"
EMBEDDING_MODEL = "my-encoder"
RERANKING_MODEL = "my-reranker"


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """Two workers with the scripted engine, which answers at once. Shared: do not break it."""
    options = ("--engine", "scripted", "--model-names", SCRIPTED_MODEL, "--workers", "2")
    with running_mesh(tmp_path_factory.mktemp("mesh"), *options) as notice:
        wait_for("every worker was known", lambda: knows_what_is_missing(notice))
        yield notice
        assert Path(notice.envoy.log_file).read_text() == "", "Envoy had something to complain of"


def knows_what_is_missing(notice: MeshNotice) -> bool:
    """Whether an unknown model is 404. A controller that has just started does not know yet who
    may still come back, so that gateways say 503 until it does.
    """
    body = {"model": "nobody", "messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(f"{notice.base_url}/chat/completions", json=body).status_code == 404


@pytest.fixture(scope="session")
def demo_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """What a plain `tokenmesh up` starts: the demo model. Shared: do not break it."""
    with running_mesh(tmp_path_factory.mktemp("demo-mesh")) as notice:
        yield notice


@pytest.fixture(scope="session")
def endless_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """One worker with one place, whose answers would last ten minutes: who gets one after another
    was left shows that leaving frees the place. Shared: leave nothing running on it.
    """
    options = ("--engine", "scripted", "--model-names", SCRIPTED_MODEL, "--")
    worker_options = (
        *("--limit-worker-concurrency", "1", "--scripted-token-interval-ms", "20"),
        *("--scripted-answer-tokens", "30000"),
    )
    folder = tmp_path_factory.mktemp("endless-mesh")
    with running_mesh(folder, *options, *worker_options) as notice:
        wait_for("the worker was known", lambda: knows_what_is_missing(notice))
        yield notice


@pytest.fixture(scope="session")
def writing_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """An engine that writes what it is asked to write, as a Qwen 3 model would. Shared: do not
    break it."""
    options = ("--engine", "scripted", "--model-names", SCRIPTED_MODEL)
    written = ("--", "--scripted-repeats", "--chat-format", "qwen3")
    with running_mesh(tmp_path_factory.mktemp("writing-mesh"), *options, *written) as notice:
        yield notice


@pytest.fixture(scope="session")
def encoder_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """A model that chats, one that embeds and one that scores, all three started by one `tokenmesh
    up` that is told of no engine. Shared: do not break it."""
    models = {
        CHAT_MODEL: checkpoint(),
        EMBEDDING_MODEL: encoder("bert"),
        RERANKING_MODEL: encoder("xlm-roberta-cross"),
    }
    options = [
        argument
        for name, folder in models.items()
        for argument in ("--model", str(folder), "--model-names", name)
    ]
    with running_mesh(tmp_path_factory.mktemp("encoder-mesh"), *options) as notice:
        yield notice
        assert Path(notice.envoy.log_file).read_text() == "", "Envoy had something to complain of"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for the processes of one test."""
    return tmp_path
