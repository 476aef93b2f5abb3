"""How late the worker's event loop is while its engine computes: thread or process?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import client, parts
from benchmarks.engine.client import EngineClient
from benchmarks.engine.prompts import random_prompts, word_ids
from benchmarks.load import Answer, measure
from benchmarks.summary import spread_ms
from services.worker.engines.settings import EngineSettings

TICK_S = 0.005
CONCURRENCIES = (0, 1, 32)
DURATION_S = 12.0
PROMPT_TOKENS = 128
COMPLETION_TOKENS = 64

ABOUT = f"""\
A timer of {TICK_S * 1000:.0f} ms on the event loop (uvloop) of a process whose engine computes in a
thread, under a closed loop of {PROMPT_TOKENS} tokens in and {COMPLETION_TOKENS} out: how much later
than asked it is called."""


@asynccontextmanager
async def ticking(late_s: list[float]) -> AsyncIterator[None]:
    """Within it, a timer notes how late it is each time."""

    async def tick() -> None:
        while True:
            due_s = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s.append(max(0.0, time.perf_counter() - due_s))

    ticker = asyncio.get_running_loop().create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


async def _load(asking: EngineClient, words: dict[str, int], concurrency: int) -> float:
    """Asks for DURATION_S seconds. Tokens/s."""
    if not concurrency:
        await asyncio.sleep(DURATION_S)
        return 0.0
    prompts = random_prompts(words, PROMPT_TOKENS, f"loop {concurrency}")

    async def ask(completion_tokens: int) -> Answer:
        return await asking.ask(next(prompts).ids, completion_tokens)

    measurement = await measure([ask] * concurrency, COMPLETION_TOKENS, DURATION_S)
    if measurement.errors:
        raise SystemExit(f"requests failed: {measurement.errors[0]}")
    return measurement.completion_tokens / measurement.elapsed_s


async def take(settings: EngineSettings) -> parts.Part:
    """Takes all runs."""
    part = parts.begin(
        "event loop",
        title="Lag of the worker's event loop",
        about=ABOUT,
        dtype=settings.dtype,
        threads=settings.threads or "default",
    )
    words = dict(word_ids(Path(settings.model_path)))
    async with client.running(settings) as asking:
        for concurrency in CONCURRENCIES:
            load_average, disturbance = machine.load_average(), machine.Disturbance()
            late_s: list[float] = []
            async with ticking(late_s):
                tokens_per_s = await _load(asking, words, concurrency)
            part["runs"].append(
                {"others_cores": disturbance.cores()}
                | _run(concurrency, load_average, late_s, tokens_per_s)
            )
    part["is_complete"] = True
    return part


def _run(
    concurrency: int, load_average: float, late_s: list[float], tokens_per_s: float
) -> dict[str, Any]:
    late_ms = spread_ms(late_s)
    return {
        "case": f"{concurrency} at once" if concurrency else "idle",
        "load_average_1m_before": load_average,
        "tokens_per_s": round(tokens_per_s, 2),
        "late_ms": late_ms,
        "late_max_ms": round(max(late_s) * 1000, 3),
        "shown": {
            "p50": f"{late_ms['p50']:.2f} ms",
            "p99": f"{late_ms['p99']:.2f} ms",
            "longest": f"{max(late_s) * 1000:.2f} ms",
            "ticks": f"{len(late_s):,}",
            "tokens/s": f"{tokens_per_s:,.0f}",
        },
    }
