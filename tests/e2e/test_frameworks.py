"""Frameworks that speak OpenAI's API, unchanged, against a mesh. `make test-frameworks` installs
them, in an environment of their own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME

FOLDER = Path(__file__).resolve().parent / "frameworks"
PYTHON = FOLDER.parents[2] / ".frameworks" / "bin" / "python"
RUN_LIMIT_S = 300.0
# litellm would fetch a list of prices.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": "/usr/bin:/bin"}


@pytest.mark.slow
@pytest.mark.timeout(RUN_LIMIT_S)
@pytest.mark.skipif(not PYTHON.exists(), reason="run 'make test-frameworks' to install them")
def test_the_frameworks(demo_mesh: MeshNotice) -> None:
    ran = subprocess.run(
        [PYTHON, "use.py", demo_mesh.base_url, DEMO_MODEL_NAME],
        cwd=FOLDER,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "litellm_calls" in ran.stdout.split()
