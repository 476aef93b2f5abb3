"""Measures, keeps the results and writes the report.

python -m benchmarks [--litellm build/litellm/bin/litellm]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine, report, scenarios
from benchmarks.peers import litellm
from benchmarks.results import FOLDER, keep


async def _take(measurements: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    runs = []
    async for run in measurements:
        runs.append(run)
        print(
            f"{run['pace']:8} {run['target']:14} {run['completion_tokens']:4} tokens "
            f"x{run['concurrency']:<4} {run['requests_per_s']:8.0f} requests/s "
            f"{run['tokens_per_s']:8.0f} tokens/s  {run['errors']} errors",
            flush=True,
        )
    return runs


def main() -> None:
    """Takes all measurements. Ends with an error if a request failed: such numbers mislead."""
    parser = argparse.ArgumentParser(description="Measures what the mesh itself costs.")
    parser.add_argument("--litellm", type=Path, help="LiteLLM's binary, to be measured as well")
    arguments = parser.parse_args()
    taken_at = datetime.now(UTC)
    results = {"taken_at": taken_at.isoformat(timespec="seconds"), "machine": machine.describe()}
    if machine.is_busy():
        print("This machine is busy with something else: the numbers will tell more of that.")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runs = runner.run(_take(scenarios.take_all()))
        if arguments.litellm is not None:
            runs += runner.run(_take(litellm.take_all(arguments.litellm)))
    target, text = keep(results | {"runs": runs}, report.markdown, folder=FOLDER)
    print(f"\n{text}\n{target}")
    errors = sum(run["errors"] for run in runs)
    if errors:
        raise SystemExit(f"{errors} requests failed")


if __name__ == "__main__":
    main()
