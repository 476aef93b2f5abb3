"""OpenAI's own Node SDK, unchanged, against a mesh."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.processes import install_node_packages

FOLDER = Path(__file__).resolve().parent / "node"


def test_the_node_sdk(mesh: MeshNotice) -> None:
    install_node_packages(FOLDER)
    ran = subprocess.run(
        ["node", "client.js", mesh.base_url, SCRIPTED_MODEL],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results: dict[str, Any] = json.loads(ran.stdout)

    assert results["models"] == {"names": [SCRIPTED_MODEL], "retrieved": SCRIPTED_MODEL}
    chat = results["chat"]
    assert (chat["object"], chat["finishReason"]) == ("chat.completion", "length")
    assert chat["usage"]["completion_tokens"] == 20
    assert results["stream"] == {
        "content": chat["content"],
        "finishReason": "length",
        "usage": chat["usage"],
    }
    assert results["runner"]["content"] == chat["content"]
    assert results["completion"]["indices"] == [0, 1]
    assert results["abandoned"]["id"].startswith("chatcmpl-")

    unknown = results["unknownModel"]
    assert (unknown["name"], unknown["status"]) == ("NotFoundError", 404)
    assert unknown["code"] == "model_not_found"
    bad = results["badField"]
    assert (bad["name"], bad["status"], bad["param"]) == ("BadRequestError", 400, "temperature")
    assert bad["requestID"]
