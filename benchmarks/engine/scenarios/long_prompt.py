"""A prompt of thousands of tokens comes while many streams run: what they feel of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import client, parts
from benchmarks.engine.client import EngineAnswer, EngineClient
from benchmarks.engine.prompts import Prompt, random_prompts, word_ids
from benchmarks.summary import spread_ms
from services.worker.engines.settings import EngineSettings

STREAMS = 16
LONG_PROMPT_TOKENS = 4000
PROMPT_TOKENS = 128
# Enough to run on behind the long prompt, on a machine that computes it in some seconds.
STREAM_TOKENS = 400
RUN_ALONE_S = 2.0
REPEATS = 3
UNBOUNDED_STEP_TOKENS = 8192

ABOUT = f"""\
{STREAMS} streams run when a prompt of {LONG_PROMPT_TOKENS} tokens comes. The gaps are those between
two tokens of the running streams: before it came, and between its coming and its first token.
In pieces is the default; whole is with room for {UNBOUNDED_STEP_TOKENS} prompt tokens in a step."""


def _gaps_s(answers: list[EngineAnswer], begin_s: float, end_s: float) -> list[float]:
    """Gaps that end within a time."""
    return [
        later - earlier
        for answer in answers
        for earlier, later in itertools.pairwise(answer.arrivals_s)
        if begin_s < later <= end_s
    ]


async def _take(
    asking: EngineClient, short: Iterator[Prompt], long: Prompt
) -> tuple[list[float], list[float], float]:
    """Gaps alone, gaps beside the long prompt, and its time to the first token, in seconds."""
    async with asyncio.TaskGroup() as tasks:
        streams = [
            tasks.create_task(asking.ask(next(short).ids, STREAM_TOKENS)) for _ in range(STREAMS)
        ]
        await asyncio.sleep(RUN_ALONE_S)
        came = await asking.ask(long.ids, 1)
    answers = [stream.result() for stream in streams]
    all_run_s = max(answer.arrivals_s[0] for answer in answers)
    first_s = came.asked_s + came.first_token_s
    if min(answer.arrivals_s[-1] for answer in answers) < first_s or all_run_s > came.asked_s:
        raise SystemExit("the streams did not run all the while: change STREAM_TOKENS")
    alone = _gaps_s(answers, all_run_s, came.asked_s)
    return alone, _gaps_s(answers, came.asked_s, first_s), came.first_token_s


async def take(settings: EngineSettings) -> parts.Part:
    """Takes all runs."""
    part = parts.begin(
        "long prompt",
        title="A long prompt beside running streams",
        about=ABOUT,
        dtype=settings.dtype,
        threads=settings.threads or "default",
    )
    words = word_ids(Path(settings.model_path))
    short = random_prompts(words, PROMPT_TOKENS, "short")
    long = random_prompts(words, LONG_PROMPT_TOKENS, "long")
    for case, step_tokens in (
        (f"in pieces of {settings.step_tokens}", settings.step_tokens),
        ("whole", UNBOUNDED_STEP_TOKENS),
    ):
        load_average, disturbance = machine.load_average(), machine.Disturbance()
        alone_s: list[float] = []
        beside_s: list[float] = []
        first_token_s: list[float] = []
        async with client.running(replace(settings, step_tokens=step_tokens)) as asking:
            await asking.ask(next(long).ids, 1)
            for _ in range(REPEATS):
                alone, beside, first = await _take(asking, short, next(long))
                alone_s += alone
                beside_s += beside
                first_token_s.append(first)
        part["runs"].append(
            {"others_cores": disturbance.cores()}
            | _run(case, load_average, alone_s, beside_s, first_token_s)
        )
    part["is_complete"] = True
    return part


def _run(
    case: str,
    load_average: float,
    alone_s: list[float],
    beside_s: list[float],
    first_token_s: list[float],
) -> dict[str, Any]:
    alone_ms, beside_ms = spread_ms(alone_s), spread_ms(beside_s)
    first_ms = spread_ms(first_token_s)
    return {
        "case": case,
        "load_average_1m_before": load_average,
        "gap_alone_ms": alone_ms,
        "gap_beside_ms": beside_ms,
        "gap_beside_max_ms": round(max(beside_s) * 1000, 2),
        "first_token_ms": first_ms,
        "shown": {
            "gap alone, p50": f"{alone_ms['p50']:.1f} ms",
            "gap alone, p99": f"{alone_ms['p99']:.1f} ms",
            "gap beside it, p50": f"{beside_ms['p50']:.1f} ms",
            "gap beside it, p99": f"{beside_ms['p99']:.1f} ms",
            "gap beside it, longest": f"{max(beside_s) * 1000:.1f} ms",
            "its TTFT": f"{first_ms['p50'] / 1000:.2f} s",
        },
    }
