"""Measures the default engine: python -m benchmarks.engine COMMAND --help."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine.model import ensure_model
from services.worker.engines.settings import DTYPES, EngineSettings


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _profile(arguments: argparse.Namespace) -> None:
    # As the engine has it, which sets it before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from benchmarks.engine import profile

    settings = EngineSettings(
        str(arguments.model or ensure_model()),
        device=arguments.device,
        dtype=arguments.dtype,
        threads=arguments.threads,
        step_tokens=arguments.step_tokens,
    )
    engine = profile.SteppedEngine(settings)
    print(f"{engine.description.name}, {engine.description.dtype}")
    for rows in arguments.rows:
        times = profile.decode_steps(engine, rows, arguments.sampling)
        print(profile.describe(f"{rows} decoding", times), flush=True)
    for prompts in arguments.prompts:
        times = profile.prefill_steps(engine, prompts)
        title = f"{prompts} prompts of {profile.PROMPT_TOKENS} tokens"
        print(profile.describe(title, times), flush=True)


def _profile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=_numbers, default=[1, 8, 32], help="decoding sequences")
    parser.add_argument("--prompts", type=_numbers, default=[4], help="prompts of prefill steps")
    parser.add_argument("--sampling", type=json.loads, default={"temperature": 0.0})
    parser.add_argument("--step-tokens", type=int, default=EngineSettings.step_tokens)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str,
        about: str,
        run: Callable[[argparse.Namespace], None],
        add_options: Callable[[argparse.ArgumentParser], None],
    ) -> None:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        command.add_argument("--model", type=Path, help="a checkpoint in place of the made one")
        command.add_argument("--dtype", choices=DTYPES, default="float32")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int)
        add_options(command)

    add("profile", "Tells what a step spends its time on.", _profile, _profile_options)
    return parser


def main() -> None:
    """Runs the command that the command line names."""
    arguments = _parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
