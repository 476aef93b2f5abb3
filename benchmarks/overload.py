"""Measures the mesh under more load than it can bear: goodput, and the wait of who is admitted.

python -m benchmarks.overload

Requests come at random times, as from very many clients that do not wait for each other, and are
not sent again when they are refused.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import grpc
import uvloop

from benchmarks import machine, mesh, results
from benchmarks.summary import spread_ms
from benchmarks.tables import table
from benchmarks.targets import prompt
from services.mesh.channels import open_channel
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc

CONNECTIONS = 8
LOADS = (0.5, 0.8, 1.0, 1.5, 3.0, 10.0)
WORKERS = 2
MAX_RUNNING = 16
TOKEN_INTERVAL_MS = 20
ANSWER_TOKENS = 32
PREFILL_MS = 5
SEED = 1
MAX_WAIT_S = 2.0
"""Set lower than the default, so that the queue is full long before a run ends."""

OPTIONS = (
    *("--scripted-prefill-ms", str(PREFILL_MS), "--max-running", str(MAX_RUNNING)),
    *("--scripted-token-interval-ms", str(TOKEN_INTERVAL_MS)),
)


def capacity_per_s() -> float:
    """Requests that the workers can answer in a second: one for each place and answer's time."""
    answer_s = (PREFILL_MS + ANSWER_TOKENS * TOKEN_INTERVAL_MS) / 1000
    return WORKERS * MAX_RUNNING / answer_s


@dataclass
class Outcome:
    """What became of the requests of one run."""

    elapsed_s: float = 0.0
    sent: int = 0
    first_token_s: list[float] = field(default_factory=list)
    finished_at_s: list[float] = field(default_factory=list)
    refused_after_s: list[float] = field(default_factory=list)
    retry_after_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def _one(stub: Any, model: str, began_s: float, outcome: Outcome) -> None:
    request = chat_pb2.ChatRequest(model=model, prompt=prompt.CHAT)
    request.sampling.max_tokens = ANSWER_TOKENS
    request.sampling.ignore_eos = True
    sent_s = time.perf_counter()
    call = stub.Chat(request)
    first_s = 0.0
    try:
        async for response in call:
            if not first_s and response.WhichOneof("event") == "chunk":
                first_s = time.perf_counter() - sent_s
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            outcome.errors.append(f"{error.code().name}: {error.details()}")
            return
        outcome.refused_after_s.append(time.perf_counter() - sent_s)
        for key, value in error.trailing_metadata() or ():
            if key == "retry-after":
                outcome.retry_after_s.append(float(value))
        return
    outcome.first_token_s.append(first_s)
    outcome.finished_at_s.append(time.perf_counter() - began_s)


async def _load(stubs: Sequence[Any], model: str, rate_per_s: float, duration_s: float) -> Outcome:
    """Sends requests at random times for `duration_s` seconds, and waits for all of them."""
    outcome, random = Outcome(), Random(SEED)
    began_s = time.perf_counter()
    due_s = began_s
    async with asyncio.TaskGroup() as tasks:
        while True:
            due_s += random.expovariate(rate_per_s)
            if due_s >= began_s + duration_s:
                break
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            stub = stubs[outcome.sent % len(stubs)]
            outcome.sent += 1
            tasks.create_task(_one(stub, model, began_s, outcome))
        outcome.elapsed_s = time.perf_counter() - began_s
    return outcome


def _summary(load: float, outcome: Outcome, duration_s: float) -> dict[str, Any]:
    """Goodput is counted over the second half, in which the queue is as long as it gets."""
    half_s = duration_s / 2
    good = sum(half_s <= at_s < duration_s for at_s in outcome.finished_at_s)
    return {
        "load": load,
        "sent": outcome.sent,
        "sent_per_s": round(outcome.sent / outcome.elapsed_s, 1),
        "finished": len(outcome.finished_at_s),
        "refused": len(outcome.refused_after_s),
        "goodput_per_s": round(good / half_s, 2),
        "first_token_ms": spread_ms(outcome.first_token_s),
        "refused_after_ms": spread_ms(outcome.refused_after_s),
        "retry_after_ms": spread_ms(outcome.retry_after_s),
        "errors": len(outcome.errors),
        "error_examples": sorted(set(outcome.errors))[:3],
    }


async def _take(duration_s: float) -> list[dict[str, Any]]:
    os.environ["TOKENMESH_GATEWAY_MAX_WAIT"] = str(MAX_WAIT_S)
    runs = []
    async with (
        mesh.running(OPTIONS, workers=WORKERS) as notice,
        AsyncExitStack() as stack,
    ):
        (address,) = notice.addresses("envoy")
        stubs = [
            chat_pb2_grpc.ChatServiceStub(await stack.enter_async_context(open_channel(address)))
            for _ in range(CONNECTIONS)
        ]
        model = notice.models[0]
        await _load(stubs, model, capacity_per_s() / 2, 2.0)
        for load in LOADS:
            outcome = await _load(stubs, model, load * capacity_per_s(), duration_s)
            run = _summary(load, outcome, duration_s)
            runs.append(run)
            print(
                f"{load:4.1f} times: {run['goodput_per_s']:6.1f}/s good, "
                f"{run['refused']:5} refused, TTFT p99 "
                f"{run['first_token_ms'].get('p99', math.nan):7.1f} ms, {run['errors']} errors",
                flush=True,
            )
    return runs


def markdown(taken: dict[str, Any]) -> str:
    """The report of what was written."""
    peak = max(run["goodput_per_s"] for run in taken["runs"])
    rows = [
        [
            f"{run['load']:g}",
            f"{run['sent_per_s']:.0f}",
            f"{run['goodput_per_s']:.1f}",
            f"{run['goodput_per_s'] / peak:.0%}",
            str(run["refused"]),
            *(f"{run['first_token_ms'][name]:.0f}" for name in ("p50", "p99")),
            f"{run['refused_after_ms'].get('p99', math.nan):.1f}",
            f"{run['retry_after_ms'].get('p50', math.nan) / 1000:.0f}",
            str(run["errors"]),
        ]
        for run in taken["runs"]
    ]
    head = ("load", "sent/s", "goodput/s", "of its peak", "refused", "TTFT p50 ms", "p99")
    return f"""# More load than can be borne

{taken["taken_at"]}, scripted engine, {WORKERS} workers behind one gateway and Envoy.

{results.machine_lines(taken["machine"])}

A load of 1 is what the workers can answer: {taken["capacity_per_s"]:.1f} requests a second of
{ANSWER_TOKENS} tokens each. Requests come at random times and are not sent again. The gateway runs
with `--max-wait {MAX_WAIT_S:g}`, the workers with `{taken["worker_options"]}`.
Each load lasts {taken["duration_s"]:g} s; goodput is of its second half.

{table((*head, "refused within p99 ms", "retry-after p50 s", "errors"), rows)}
"""


def main() -> None:
    """Takes all measurements. Ends with an error if a request failed otherwise than by refusal."""
    parser = argparse.ArgumentParser(description="Measures the mesh under overload.")
    parser.add_argument("--duration", type=float, default=12.0, help="seconds for each load")
    arguments = parser.parse_args()
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    described = machine.describe()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runs = runner.run(_take(arguments.duration))
    content = {
        "taken_at": taken_at,
        "machine": described,
        "capacity_per_s": round(capacity_per_s(), 2),
        "duration_s": arguments.duration,
        "worker_options": " ".join(OPTIONS),
        "runs": runs,
    }
    path, text = results.keep(content, markdown, "-overload", folder=results.FOLDER)
    print(f"\n{text}\n{path}")
    errors = sum(run["errors"] for run in runs)
    if errors:
        raise SystemExit(f"{errors} requests failed")


if __name__ == "__main__":
    main()
