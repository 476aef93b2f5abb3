"""OpenAI's own Node SDK, unchanged, against a mesh."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import EMBEDDING_MODEL, SCRIPTED_MODEL
from tests.e2e.processes import install_node_packages

FOLDER = Path(__file__).resolve().parent / "node"


def results_of(script: str, mesh: MeshNotice, model: str = SCRIPTED_MODEL) -> dict[str, Any]:
    install_node_packages(FOLDER)
    ran = subprocess.run(
        ["node", script, mesh.base_url, model],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results: dict[str, Any] = json.loads(ran.stdout)
    return results


def test_the_node_sdk(mesh: MeshNotice) -> None:
    results = results_of("client.js", mesh)

    assert results["models"] == {"names": [SCRIPTED_MODEL], "retrieved": SCRIPTED_MODEL}
    chat = results["chat"]
    assert (chat["object"], chat["finishReason"]) == ("chat.completion", "length")
    assert chat["usage"]["completion_tokens"] == 20
    for answer in (chat, results["stream"]):
        # What an earlier request has left in a cache is not the point.
        del answer["usage"]["prompt_tokens_details"]
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


def test_the_node_sdk_calls_tools(writing_mesh: MeshNotice) -> None:
    results = results_of("tools.js", writing_mesh)
    assert results["body"] == {
        "content": "Let me see.",
        "reasoning": "Hm",
        "calls": [{"type": "function", "name": "weather", "arguments": '{"city": "Oslo"}'}],
        "finishReason": "tool_calls",
    }
    # The SDK does not know reasoning, and puts together what it knows.
    assert results["stream"] | {"reasoning": "Hm"} == results["body"]
    for loop in (results["loop"], results["streamedLoop"]):
        assert loop == {"content": "clear in Oslo", "result": "clear in Oslo"}
    assert results["asked"] == ["Oslo", "Oslo"]


def test_the_node_sdk_embeds(encoder_mesh: MeshNotice) -> None:
    results = results_of("embeddings.js", encoder_mesh, EMBEDDING_MODEL)
    by_default, floats = results["byDefault"], results["floats"]
    assert by_default["dimensions"] == [32, 32]
    assert by_default["indices"] == [0, 1]
    # The SDK asks for base64 and decodes it; that these are the same vectors is the point.
    assert by_default["vectors"] == pytest.approx(floats["vectors"], abs=1e-6)
    assert results["cut"]["dimensions"] == [5]
    assert results["tokens"]["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    bad = results["badField"]
    assert (bad["name"], bad["status"], bad["param"]) == ("BadRequestError", 400, "dimensions")
