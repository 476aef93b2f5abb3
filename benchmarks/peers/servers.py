"""The peers as their users run them: servers of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import FASTCHAT, VLLM
from benchmarks.peers.process import POLL_INTERVAL_S, START_LIMIT_S, free_port, listening

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    address: str
    model: str


def _models(address: str) -> set[str]:
    with urllib.request.urlopen(f"http://{address}/v1/models", timeout=5) as response:
        return {each["id"] for each in json.load(response)["data"]}


async def _until_served(address: str, model: str) -> None:
    """Waits until the server lists the model.

    Raises:
        TimeoutError: it does not within START_LIMIT_S.
    """
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            try:
                if model in await asyncio.to_thread(_models, address):
                    return
            except OSError:
                pass  # It does not answer yet.
            await asyncio.sleep(POLL_INTERVAL_S)


@asynccontextmanager
async def vllm(model: Path, dtype: str, logs: Path) -> AsyncIterator[Server]:
    """vLLM's OpenAI server, without prefix cache, as prompts here never share one."""
    port = free_port()
    name = model.name
    async with listening(
        *(str(VLLM.python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", name, "--dtype", dtype),
        *("--host", _HOST, "--port", str(port)),
        *("--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "512"),
        port=port,
        environment={"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "WARNING"},
        log_file=logs / "vllm-server.log",
    ):
        server = Server(f"{_HOST}:{port}", name)
        await _until_served(server.address, name)
        yield server


@asynccontextmanager
async def fastchat(model: Path, dtype: str, logs: Path) -> AsyncIterator[Server]:
    """FastChat: controller, model worker and API server, with their defaults.

    Its worker computes in float32 on a CPU, whatever is asked for.
    """
    assert dtype == "float32", "FastChat has no other on a CPU"
    controller_port, worker_port, port = free_port(), free_port(), free_port()
    controller = f"http://{_HOST}:{controller_port}"
    worker = f"http://{_HOST}:{worker_port}"
    name = model.name
    async with AsyncExitStack() as stack:

        async def start(module: str, at: int, *options: str) -> None:
            await stack.enter_async_context(
                listening(
                    *(str(FASTCHAT.python), "-m", f"fastchat.serve.{module}"),
                    *("--host", _HOST, "--port", str(at), *options),
                    port=at,
                    # It writes its logs into the folder that it runs in by default.
                    environment={"LOGDIR": str(logs)},
                    log_file=logs / f"fastchat-{module}.log",
                )
            )

        await start("controller", controller_port)
        await start(
            *("model_worker", worker_port, "--controller-address", controller),
            *("--worker-address", worker, "--model-path", str(model), "--model-names", name),
            *("--device", "cpu"),
        )
        await start("openai_api_server", port, "--controller-address", controller)
        server = Server(f"{_HOST}:{port}", name)
        await _until_served(server.address, name)
        yield server
