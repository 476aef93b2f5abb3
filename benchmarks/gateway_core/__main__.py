"""Measures what a token costs a gateway's core, keeps the results and writes the report.

python -m benchmarks.gateway_core [--beside CHECKOUT] [--rounds 5] [--only chat]
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine
from benchmarks.gateway_core.cases import SETUPS
from benchmarks.gateway_core.report import markdown
from benchmarks.gateway_core.rounds import Rounds
from benchmarks.results import FOLDER, keep

HERE = Path(__file__).parents[2]


async def _take_all(rounds: Rounds, only: str) -> list[dict[str, Any]]:
    runs = []
    for setup in SETUPS:
        cases = tuple(case for case in setup.cases if only in case.name)
        if not cases:
            continue
        async for run in rounds.take(replace(setup, cases=cases)):
            runs.append(run)
            print(
                f"{run['pace']:8} {run['target']:34} {run['checkout']:8} "
                f"{run['cpu_us_per_token']['gateway']:8.1f} us/token "
                f"{run['tokens_per_s']:8.0f} tokens/s  {run['chunks_per_token']:.2f} chunks/token  "
                f"{run['errors']} errors",
                flush=True,
            )
    return runs


def main() -> None:
    """Takes all measurements. Ends with an error if a request failed: such numbers mislead."""
    parser = argparse.ArgumentParser(description="Measures what a token costs a gateway's core.")
    parser.add_argument(
        "--beside", type=Path, help="another checkout, measured in turn; it runs in this Python"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=3.0, help="seconds a run")
    parser.add_argument("--concurrency", type=int, default=32, help="streams at once")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    arguments = parser.parse_args()
    checkouts = {"here": HERE}
    if arguments.beside is not None:
        checkouts["beside"] = arguments.beside.resolve()
    rounds = Rounds(
        checkouts,
        concurrency=arguments.concurrency,
        rounds=arguments.rounds,
        duration_s=arguments.duration,
    )
    taken_at = datetime.now(UTC)
    about = {
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "checkouts": {name: machine.commit(folder) for name, folder in checkouts.items()},
        "concurrency": arguments.concurrency,
        "duration_s": arguments.duration,
        "rounds": arguments.rounds,
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runs = runner.run(_take_all(rounds, arguments.only))
    if not runs:
        raise SystemExit(f"no case has {arguments.only!r} in its name")
    content = about | {"absent": rounds.absent, "runs": runs}
    target, text = keep(content, markdown, "-gateway-core", folder=FOLDER)
    print(f"\n{text}\n{target}")
    errors = sum(run["errors"] for run in runs)
    if errors:
        raise SystemExit(f"{errors} requests failed")


if __name__ == "__main__":
    main()
