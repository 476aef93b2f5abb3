"""`python -m tests.chaos`: sets a mesh on fire and says what its clients noticed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from random import SystemRandom

from tests.chaos import report
from tests.chaos.profiles import PROFILES
from tests.chaos.run import run
from tests.chaos.schedule import schedule

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Runs what the command line asks for. 0 when no client noticed anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="long")
    parser.add_argument("--seed", type=int, help="of the schedule; drawn where none is given")
    parser.add_argument("--minutes", type=float, help="how long, where not as the profile says")
    parser.add_argument("--logs", type=Path, help="folder for the processes' logs")
    parser.add_argument("--write", action="store_true", help=f"write a report to {RESULTS.name}/")
    parser.add_argument("--plan", action="store_true", help="print the schedule and do nothing")
    parser.add_argument("--no-cuts", action="store_true", help="leave the network alone")
    asked = parser.parse_args()
    profile = PROFILES[asked.profile]
    if asked.minutes is not None:
        if not asked.minutes >= 1:
            parser.error(f"--minutes is {asked.minutes:g}; it must be 1 or more")
        profile = profile.lasting(60 * asked.minutes)
    seed = SystemRandom().randrange(2**31) if asked.seed is None else asked.seed
    if asked.plan:
        for fault in schedule(seed, profile.layout.parts(), profile.fire):
            print(fault)
        return 0
    logs = asked.logs or Path(tempfile.mkdtemp(prefix="tokenmesh-chaos-"))
    logs.mkdir(parents=True, exist_ok=True)
    ran = asyncio.run(
        run(
            profile,
            seed,
            logs,
            wants_cuts=not asked.no_cuts,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    print(report.text(ran))
    if asked.write:
        name = f"{datetime.now().astimezone():%Y-%m-%d-%H%M}-{profile.name}"
        print(f"written to {report.write(ran, RESULTS, name)}", file=sys.stderr)
    if not ran.verdict.is_clean:
        print(f"again: {report.command(ran)}   logs: {logs}", file=sys.stderr)
    return 0 if ran.verdict.is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
