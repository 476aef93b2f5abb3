"""Measures the default engine: python -m benchmarks.engine COMMAND --help."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks.engine import parts
from benchmarks.engine.model import ensure_model
from services.worker.engines.settings import DTYPES, EngineSettings
from services.worker.engines.transformers.threads import bound_spinning


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def _tell(line: str) -> None:
    print(line, flush=True)


def _model(arguments: argparse.Namespace) -> Path:
    return arguments.model or ensure_model()


def _part_name(*words: object) -> str:
    return "-".join(str(word) for word in words)


def _telling(name: str) -> Callable[[str, parts.Part], None]:
    """Prints each run, and keeps what there is: who is ended by a time limit keeps that."""

    def tell(line: str, part: parts.Part) -> None:
        _tell(line)
        parts.keep(part, name)

    return tell


def _in_process(arguments: argparse.Namespace) -> None:
    from benchmarks.engine import in_process

    name = _part_name("in-process", arguments.dtype, *sorted(arguments.peers))
    plan = in_process.Plan(
        peers=in_process.choose(arguments.peers),
        dtype=arguments.dtype,
        threads=arguments.threads,
        concurrencies=arguments.concurrencies,
        repeats=arguments.repeats,
    )
    part = in_process.take(plan, _model(arguments), _telling(name))
    print(parts.keep(part, name))


def _served(arguments: argparse.Namespace) -> None:
    from benchmarks.engine import served

    name = _part_name("served", arguments.dtype, *sorted(arguments.peers))
    plan = served.Plan(
        servings=served.choose(arguments.peers, arguments.dtype),
        dtype=arguments.dtype,
        concurrencies=arguments.concurrencies,
        repeats=arguments.repeats,
    )
    part = uvloop.run(served.take(plan, _model(arguments), _telling(name)))
    print(parts.keep(part, name))


SCENARIOS = {
    "long-prompt": "Measures running streams while a long prompt comes.",
    "prefix-cache": "Measures prompts that begin alike.",
    "event-loop": "Measures the lag of the worker's event loop.",
    "sampling": "Measures what each way of sampling costs a step.",
}


def _scenario(arguments: argparse.Namespace) -> None:
    # As the engine has it, which sets it before torch is loaded.
    bound_spinning()
    from benchmarks.engine.scenarios import event_loop, long_prompt, prefix_cache, sampling

    settings = EngineSettings(
        str(_model(arguments)),
        device=arguments.device,
        dtype=arguments.dtype,
        threads=arguments.threads,
    )
    name = arguments.scenario
    if name == "sampling":
        part = sampling.take(settings)
    else:
        takes = {
            "long-prompt": long_prompt.take,
            "prefix-cache": prefix_cache.take,
            "event-loop": event_loop.take,
        }
        part = uvloop.run(takes[name](settings))
    for run in part["runs"]:
        _tell(f"{run['case']:32} {run['shown']}")
    print(parts.keep(part, _part_name(name, arguments.dtype)))


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Scenarios take what all commands take."""


# Each within five minutes on two cores.
ALL = (
    "in-process --dtype float32 --peers ours,vllm",
    "in-process --dtype bfloat16 --peers ours,vllm",
    "in-process --dtype float32 --peers ours,batching,generate --concurrencies 1,32",
    "served --dtype float32 --peers ours,engine,fastchat --concurrencies 32",
    "served --dtype bfloat16 --peers ours,engine,vllm --concurrencies 32",
    *(f"{name} --dtype bfloat16" for name in SCENARIOS),
    "report",
)


def _all(arguments: argparse.Namespace) -> None:
    for command in ALL:
        _tell(f"\n# python -m benchmarks.engine {command}")
        words = [sys.executable, "-m", "benchmarks.engine", *command.split()]
        subprocess.run(words, check=True)


def _report(arguments: argparse.Namespace) -> None:
    from benchmarks.engine import report
    from benchmarks.results import FOLDER, keep

    content = report.join(parts.read_all())
    target, text = keep(content, report.markdown, "-engine", folder=FOLDER)
    print(f"{text}\n{target}")


def _profile(arguments: argparse.Namespace) -> None:
    # As the engine has it, which sets it before torch is loaded.
    bound_spinning()
    from benchmarks.engine import profile

    settings = EngineSettings(
        str(_model(arguments)),
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


def _kernels(arguments: argparse.Namespace) -> None:
    # As the engine has it, which sets it before torch is loaded.
    bound_spinning()
    from benchmarks.engine import kernels

    for line in kernels.take(arguments.threads, arguments.rounds):
        _tell(line)


def _kernel_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=60, help="calls of each kind")


def _profile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=_numbers, default=[1, 8, 32], help="decoding sequences")
    parser.add_argument("--prompts", type=_numbers, default=[4], help="prompts of prefill steps")
    parser.add_argument("--sampling", type=json.loads, default={"temperature": 0.0})
    parser.add_argument("--step-tokens", type=int, default=EngineSettings.step_tokens)


def _comparison_options(peers: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--peers", type=_names, required=True, help=f"of {peers}")
        parser.add_argument("--concurrencies", type=_numbers, default=[1, 8, 32])
        parser.add_argument("--repeats", type=int, default=3)

    return add


def command_line() -> argparse.ArgumentParser:
    """What can be measured, and how it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str,
        about: str,
        run: Callable[[argparse.Namespace], None],
        add_options: Callable[[argparse.ArgumentParser], None],
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        command.add_argument("--model", type=Path, help="a checkpoint in place of the made one")
        command.add_argument("--dtype", choices=DTYPES, default="float32")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int)
        add_options(command)
        return command

    add(
        "in-process",
        "Measures engines as libraries, in turn.",
        _in_process,
        _comparison_options("ours,int8,vllm,batching,generate"),
    )
    add(
        "served",
        "Measures servers of OpenAI's API, in turn.",
        _served,
        _comparison_options("ours,engine,vllm,fastchat"),
    )
    for name, about in SCENARIOS.items():
        add(name, about, _scenario, _no_options).set_defaults(scenario=name)
    add("profile", "Tells what a step spends its time on.", _profile, _profile_options)
    about = "Measures the CPU kernels beside torch's own."
    own_kernels = commands.add_parser("kernels", help=about, description=about)
    own_kernels.set_defaults(run=_kernels)
    _kernel_options(own_kernels)
    everything = commands.add_parser("all", help="Measures all that a report tells, and writes it.")
    everything.set_defaults(run=_all)
    report = commands.add_parser("report", help="Writes one report of all that was measured.")
    report.set_defaults(run=_report)
    return parser


def main() -> None:
    """Runs the command that the command line names."""
    arguments = command_line().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
