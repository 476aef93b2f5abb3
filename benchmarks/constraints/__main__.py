"""Measures constrained decoding: python -m benchmarks.constraints --help.

First the libraries for it, each over each vocabulary in a process of its own; then what outputs
that are held to a form cost the batch of the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.constraints.batch import MODELS, ROUNDS, measure
from benchmarks.constraints.libraries import LIBRARIES, XGRAMMAR, XGRAMMAR_FOLDER
from benchmarks.constraints.report import markdown
from benchmarks.constraints.vocabularies import NAMES, tokenizer_of

PARTS = ("libraries", "batch")


def main(arguments: Sequence[str] | None = None, *, folder: Path = results.FOLDER) -> None:
    """Measures, prints, and keeps the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constraints", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    parser.add_argument(
        "--install-peer", action="store_true", help=f"install xgrammar in {XGRAMMAR_FOLDER}"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each kind in the batch, beside the first"
    )
    parser.add_argument(
        "--model", choices=list(MODELS), action="append", help="in the batch; all by default"
    )
    given = parser.parse_args(arguments)
    for part in given.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}: choose from {', '.join(PARTS)}")
    if given.install_peer:
        _install()
    content: dict[str, Any] = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(("llguidance", "torch", "transformers")),
    }
    if not given.parts or "libraries" in given.parts:
        content["libraries"] = _libraries()
    if not given.parts or "batch" in given.parts:
        names = given.model or list(MODELS)
        content["batch"] = [asyncio.run(measure(name, given.rounds)) for name in names]
    target, report = results.keep(content, markdown, "-constraints", folder=folder)
    print(f"{report}\nkept as {target.name}")


def _install() -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(XGRAMMAR_FOLDER)]
    subprocess.run([*pip, *XGRAMMAR], check=True)


def _libraries() -> list[dict[str, Any]]:
    taken = []
    for vocabulary in NAMES:
        # Trained here, where it takes nobody's time.
        tokenizer_of(vocabulary)
        for library in LIBRARIES:
            if library == "xgrammar" and not XGRAMMAR_FOLDER.exists():
                taken.append({"library": library, "vocabulary": vocabulary, "absent": True})
                continue
            disturbance = machine.Disturbance()
            command = [sys.executable, "-m", "benchmarks.constraints.walks", library, vocabulary]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            figures["others_cores"] = disturbance.cores()
            taken.append(figures)
            print(f"{library} over {vocabulary}", flush=True)
    return taken


if __name__ == "__main__":
    main()
