"""What people build on OpenAI's API with, unchanged, against a mesh: each chats, streams, calls a
tool and gets structured output. `make test-tools` installs the Python ones, in an environment of
their own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME
from tests.e2e.conftest import EMBEDDING_MODEL
from tests.e2e.processes import install_node_packages

FOLDER = Path(__file__).resolve().parent
PYTHON = FOLDER.parents[1] / ".frameworks" / "bin" / "python"
RUN_LIMIT_S = 240.0
# Where nothing listens. Whatever a framework would fetch from elsewhere than the mesh, it gets not.
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1",
    # It would fetch a list of prices.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
pytestmark = pytest.mark.timeout(RUN_LIMIT_S + 120)


def uses(command: Sequence[str | Path], folder: Path) -> list[str]:
    """The names of the uses that went well, which are all of them."""
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=RUN_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{error}:\n{(error.stdout or b'').decode()}") from None
    printed = ran.stdout.decode()
    assert ran.returncode == 0, printed
    return printed.split()


@pytest.mark.parametrize(
    "framework", ["instructor", "langchain", "litellm", "llama_index", "pydantic_ai"]
)
def test_a_python_framework(framework: str, demo_mesh: MeshNotice) -> None:
    assert PYTHON.exists(), "no frameworks are installed: run make test-tools"
    command = (PYTHON, f"use_{framework}.py", demo_mesh.base_url, DEMO_MODEL_NAME)
    assert "tool_call" in uses(command, FOLDER / "frameworks")


def test_vercels_ai_sdk(demo_mesh: MeshNotice) -> None:
    install_node_packages(FOLDER / "ai_sdk")
    command = ("node", "use.js", demo_mesh.base_url, DEMO_MODEL_NAME)
    assert uses(command, FOLDER / "ai_sdk")[-1] == "unknownModel"


def test_vercels_ai_sdk_embeds(encoder_mesh: MeshNotice) -> None:
    install_node_packages(FOLDER / "ai_sdk")
    command = ("node", "embed.js", encoder_mesh.base_url, EMBEDDING_MODEL)
    assert uses(command, FOLDER / "ai_sdk") == ["embeddings"]
