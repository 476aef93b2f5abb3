"""LiteLLM's proxy before an instant server, asked as the mesh is asked over REST.

Install it in an environment of its own, as its dependencies are not ours:

    python3 -m venv build/litellm && build/litellm/bin/pip install 'litellm[proxy]'
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.process import free_port, listening
from benchmarks.runs import Subject, in_turn, take
from benchmarks.scenarios import SINGLE_TOKENS, STREAM_TOKENS
from benchmarks.targets import openai_rest

MODEL = "instant"
PACE = "peer"
# It needs half a minute for 256 streams of 128 tokens: these tell enough.
CONCURRENCIES = (1, 32)
DURATION_S = 1.5
REPEATS = 2
QUIET = {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}


def _write_configuration(folder: str, server_port: int) -> str:
    """Writes LiteLLM's configuration. Its path. JSON is YAML."""
    parameters = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{server_port}/v1",
        "api_key": "none",
    }
    file = Path(folder, "litellm.yaml")
    fields = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        # No keys, as in the mesh that it is compared with.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    file.write_text(json.dumps(fields))
    return str(file)


async def take_all(binary: Path) -> AsyncIterator[dict[str, Any]]:
    """Asks the instant server itself, and through LiteLLM."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenmesh-bench-"))
        server_port, port = free_port(), free_port()
        configuration = _write_configuration(folder, server_port)
        server_id = await stack.enter_async_context(
            listening(
                *(sys.executable, "-m", "benchmarks.peers.instant_server", str(server_port)),
                port=server_port,
            )
        )
        litellm_id = await stack.enter_async_context(
            listening(
                *(str(binary), "--config", configuration, "--host", "127.0.0.1"),
                *("--port", str(port), "--num_workers", "1"),
                port=port,
                environment=QUIET,
            )
        )
        ids = {"instant server": server_id, "LiteLLM": litellm_id}
        subjects = [
            Subject(name, f"127.0.0.1:{at}", MODEL, openai_rest.connect, ids)
            for name, at in (("instant server", server_port), ("LiteLLM", port))
        ]
        tokens = (SINGLE_TOKENS, STREAM_TOKENS)
        for subject, run in in_turn(subjects, PACE, tokens, CONCURRENCIES, REPEATS):
            yield await take(subject, run, DURATION_S)
