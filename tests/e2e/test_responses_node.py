"""/v1/responses through Envoy, by OpenAI's own Node SDK, unchanged."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.processes import install_node_packages
from tests.e2e.test_openai_node import FOLDER
from tests.e2e.test_openai_tools import CALL, THOUGHT


def run(program: str, *arguments: str) -> dict[str, Any]:
    """What a program of the folder prints."""
    install_node_packages(FOLDER)
    ran = subprocess.run(
        ["node", program, *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_tools_and_thoughts(writing_mesh: MeshNotice) -> None:
    written = f"{THOUGHT}Sure.\n{CALL}"
    results = run("response_tools.js", writing_mesh.base_url, SCRIPTED_MODEL, written)
    assert results == {
        "items": ["reasoning", "message", "function_call"],
        "thought": "The user wants 🌦.",
        "text": "Sure.",
        "call": {"name": "weather", "arguments": {"city": "Oslo"}},
        "last": "response.completed",
        "second": "Thanks.",
    }


def test_the_node_sdk(mesh: MeshNotice) -> None:
    results = run("responses.js", mesh.base_url, SCRIPTED_MODEL)

    whole = results["whole"]
    assert (whole["object"], whole["status"]) == ("response", "incomplete")
    assert whole["usage"]["output_tokens"] == 20
    numbers, kinds = zip(*results["events"], strict=True)
    assert list(numbers) == list(range(len(numbers)))
    assert (kinds[0], kinds[-1]) == ("response.created", "response.incomplete")
    assert results["stream"] == {"status": "incomplete", "text": whole["text"]}

    conversation = results["conversation"]
    assert conversation["roles"] == ["user", "assistant", "user"]
    assert conversation["same"]
    assert (conversation["deleted"]["name"], conversation["deleted"]["status"]) == (
        "NotFoundError",
        404,
    )
    background = results["background"]
    assert (background["first"], background["last"]) == ("queued", "incomplete")
    assert background["text"] == whole["text"]
    assert (background["late"]["name"], background["late"]["status"]) == ("BadRequestError", 400)
    bad = results["badField"]
    assert (bad["name"], bad["param"]) == ("BadRequestError", "tools[0].type")
