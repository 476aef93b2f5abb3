"""What each in-process engine under measurement runs: rounds of prompts, as it is told.

A runner is a process of its own, in an environment of its own. It prints one line of JSON once its
engine is loaded; then it reads one round a line and prints what the round took. This module needs
nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, TextIO

Run = Callable[[Sequence[Sequence[int]], int], int]
"""Answers all prompts at once with so many tokens each. How many tokens it made in all."""


def arguments() -> argparse.Namespace:
    """The arguments that every runner takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, help="default: what the engine takes by itself")
    parser.add_argument("--quantization", help="of our own engine; default: none")
    return parser.parse_args()


def own_stdout() -> TextIO:
    """Standard output for this protocol alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def serve(answers: TextIO, run: Run, *, packages: Sequence[str], **about: Any) -> None:
    """Takes rounds until standard input ends."""
    versions = {package: version(package) for package in packages}
    print(json.dumps({"versions": versions, **about}), file=answers)
    for line in sys.stdin:
        wanted = json.loads(line)
        cpu_began_s, began_s = time.process_time(), time.perf_counter()
        tokens = run(wanted["prompts"], wanted["completion_tokens"])
        taken = {
            "elapsed_s": round(time.perf_counter() - began_s, 5),
            "cpu_s": round(time.process_time() - cpu_began_s, 3),
            "completion_tokens": tokens,
        }
        print(json.dumps(taken), file=answers)
