"""Measures what the routing policy does to prefix caches: conversations over several workers.

python -m benchmarks.routing [--demo-model] [--policy NAME …]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import uvloop

from benchmarks import machine, mesh, results
from benchmarks.conversations import Talk, Talked, talk
from benchmarks.summary import spread_ms
from benchmarks.tables import table
from services.mesh.channels import open_channel
from tokenmesh.gateway.v1 import chat_pb2_grpc

CONNECTIONS = 4
POLICIES = ("round_robin", "shortest_queue", "prefix_affinity")
SEED = 1

# As a mid-sized model on a GPU: 10,000 prompt tokens/s, 50 tokens/s for each of its sequences. The
# workers together can keep every conversation in their KV memory, but no worker can keep all.
SCRIPTED = (
    *("--scripted-prefill-token-ms", "0.1", "--scripted-token-interval-ms", "20"),
    *("--scripted-kv-tokens", "60000", "--max-running", "32"),
)
SCRIPTED_WORKERS = 3
SCRIPTED_TALK = Talk(
    clients=40,
    applications=6,
    system_words=600,
    question_words=150,
    turns=12,
    answer_tokens=24,
    pause_s=1.2,
)

DEMO_WORKERS = 2
DEMO_TALK = Talk(
    clients=6,
    applications=4,
    system_words=60,
    question_words=10,
    turns=4,
    answer_tokens=12,
    pause_s=0.3,
)


def _summary(policy: str, talked: Talked) -> dict[str, Any]:
    prompt_tokens = sum(turn.prompt_tokens for turn in talked.turns)
    cached_tokens = sum(turn.cached_tokens for turn in talked.turns)
    later = [turn for turn in talked.turns if turn.number > 1]
    return {
        "policy": policy,
        "turns": len(talked.turns),
        "errors": len(talked.errors),
        "error_examples": sorted(set(talked.errors))[:3],
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "first_token_ms": spread_ms(turn.first_token_s for turn in talked.turns),
        "first_token_of_later_turns_ms": spread_ms(turn.first_token_s for turn in later),
    }


async def _measure(policy: str, duration_s: float, *, demo_model: bool) -> dict[str, Any]:
    shape = DEMO_TALK if demo_model else SCRIPTED_TALK
    up_options = ["--routing-policy", policy]
    if not demo_model:
        up_options += ["--engine", "scripted"]
    async with (
        mesh.running(
            () if demo_model else SCRIPTED,
            up_options=up_options,
            workers=DEMO_WORKERS if demo_model else SCRIPTED_WORKERS,
        ) as notice,
        AsyncExitStack() as stack,
    ):
        (address,) = notice.addresses("envoy")
        channels = [
            await stack.enter_async_context(open_channel(address)) for _ in range(CONNECTIONS)
        ]
        stubs = [chat_pb2_grpc.ChatServiceStub(channel) for channel in channels]
        talked = await talk(stubs, notice.models[0], shape, duration_s=duration_s, seed=SEED)
    return _summary(policy, talked)


async def _take(
    policies: list[str], repeats: int, duration_s: float, *, demo_model: bool
) -> list[dict[str, Any]]:
    """Policies take turns, so that a disturbance does not meet one of them alone."""
    runs = []
    for repeat, policy in itertools.product(range(repeats), policies):
        run = await _measure(policy, duration_s, demo_model=demo_model)
        runs.append(run | {"repeat": repeat})
        share = run["cached_tokens"] / max(1, run["prompt_tokens"])
        print(
            f"{policy:16} {run['turns']:5} turns, {share:6.1%} cached, TTFT p50 "
            f"{run['first_token_ms'].get('p50', 0):7.1f} ms, {run['errors']} errors",
            flush=True,
        )
    return runs


def markdown(taken: dict[str, Any]) -> str:
    """The report of what was written."""
    rows = []
    for run in sorted(taken["runs"], key=lambda run: (run["policy"], run["repeat"])):
        all_turns, later = run["first_token_ms"], run["first_token_of_later_turns_ms"]
        rows.append(
            [
                run["policy"],
                str(run["turns"]),
                f"{run['cached_tokens'] / max(1, run['prompt_tokens']):.1%}",
                *(f"{all_turns[name]:.0f}" for name in ("p50", "p90", "p99")),
                *(f"{later[name]:.0f}" for name in ("p50", "p99")),
                str(run["errors"]),
            ]
        )
    shape = taken["talk"]
    head = ("policy", "turns", "cached tokens", "TTFT p50 ms", "p90", "p99")
    return f"""# Routing policies and prefix caches

{taken["taken_at"]}, {taken["engine"]}, {taken["workers"]} workers behind one gateway and Envoy.

{results.machine_lines(taken["machine"])}

{shape["clients"]} clients at once hold conversations of {shape["turns"]} turns; those of each of
{shape["applications"]} applications share a system prompt of {shape["system_words"]} words, and a
question has {shape["question_words"]}. Worker options: `{taken["worker_options"] or "none"}`.

{table((*head, "TTFT of later turns p50", "p99", "errors"), rows)}
"""


def main() -> None:
    """Takes all measurements. Ends with an error if a request failed: such numbers mislead."""
    parser = argparse.ArgumentParser(description="Measures routing policies by prefix caches.")
    parser.add_argument("--demo-model", action="store_true", help="the real engine, on this CPU")
    parser.add_argument("--policy", action="append", help="one to measure; repeat it for several")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds for each run")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    described = machine.describe()
    demo_model = arguments.demo_model
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runs = runner.run(
            _take(
                arguments.policy or list(POLICIES),
                arguments.repeats,
                arguments.duration,
                demo_model=demo_model,
            )
        )
    content = {
        "taken_at": taken_at,
        "machine": described,
        "engine": "transformers engine with the demo model" if demo_model else "scripted engine",
        "workers": DEMO_WORKERS if demo_model else SCRIPTED_WORKERS,
        "worker_options": "" if demo_model else " ".join(SCRIPTED),
        "talk": asdict(DEMO_TALK if demo_model else SCRIPTED_TALK),
        "runs": runs,
    }
    name = "-routing-demo-model" if demo_model else "-routing"
    path, text = results.keep(content, markdown, name, folder=results.FOLDER)
    print(f"\n{text}\n{path}")
    errors = sum(run["errors"] for run in runs)
    if errors:
        raise SystemExit(f"{errors} requests failed")


if __name__ == "__main__":
    main()
