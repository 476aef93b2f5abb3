"""Our own default engine, through its contract: python -m benchmarks.peers.ours MODEL --dtype …

Unlike its peers it turns ids into text, as its contract has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import uvloop

from benchmarks.engine.client import EngineClient, running
from benchmarks.peers import rounds
from services.worker.engines.settings import EngineSettings

KV_CACHE_BYTES = 256 * 1024 * 1024
KV_CACHE_MEMORY = "256MiB"
"""Enough for 32 of the requests, and used all over after a few rounds: as a server that has run for
a while. Peers fill theirs with zeros at the start."""


async def _answer(
    client: EngineClient, prompts: Sequence[Sequence[int]], completion_tokens: int
) -> int:
    answers = await asyncio.gather(*(client.ask(ids, completion_tokens) for ids in prompts))
    return sum(answer.completion_tokens for answer in answers)


async def main() -> None:
    """Loads the model and takes rounds."""
    answers = rounds.own_stdout()
    arguments = rounds.arguments()
    settings = EngineSettings(
        arguments.model,
        device="cpu",
        dtype=arguments.dtype,
        threads=arguments.threads,
        quantization=arguments.quantization,
        kv_memory_bytes=KV_CACHE_BYTES,
    )
    loop = asyncio.get_running_loop()
    async with running(settings) as client:

        def run(prompts: Sequence[Sequence[int]], completion_tokens: int) -> int:
            answered = _answer(client, prompts, completion_tokens)
            return asyncio.run_coroutine_threadsafe(answered, loop).result()

        # Reading rounds blocks, as nothing of the worker does.
        await asyncio.to_thread(
            rounds.serve, answers, run, packages=("tokenmesh", "torch", "transformers")
        )


if __name__ == "__main__":
    uvloop.run(main())
