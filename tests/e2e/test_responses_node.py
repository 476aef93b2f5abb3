"""/v1/responses through Envoy, by OpenAI's own Node SDK, unchanged."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.processes import install_node_packages
from tests.e2e.test_openai_node import FOLDER


def test_the_node_sdk(mesh: MeshNotice) -> None:
    install_node_packages(FOLDER)
    ran = subprocess.run(
        ["node", "responses.js", mesh.base_url, SCRIPTED_MODEL],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results: dict[str, Any] = json.loads(ran.stdout)

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
