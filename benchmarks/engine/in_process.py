"""Our engine and its peers as libraries: the same rounds of prompts, in turn.

Each runs in a process of its own that is loaded once. A round is as many prompts at once as the
concurrency; the next begins when the last answer is whole.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import parts
from benchmarks.engine.peers import LIBRARIES, OURS, Library
from benchmarks.engine.prompts import Prompt, random_prompts, word_ids

PROMPT_TOKENS = 128
COMPLETION_TOKENS = 64
# More where a round is short.
WARM_UP_ROUNDS = 3
ROUNDS = {1: 4, 8: 3, 32: 2}
REPEATS = 3
STOP_LIMIT_S = 20.0


class RunnerError(SystemExit):
    """A peer's process ended instead of answering: so does the measuring, with that line."""


class Runner:
    """A peer's process."""

    def __init__(
        self, peer: Library, model: Path, dtype: str, threads: int | None, log_file: Path
    ) -> None:
        self.peer = peer
        self._log_file = log_file
        command = [str(peer.python), "-m", peer.module, str(model), "--dtype", dtype, *peer.options]
        if threads is not None:
            command += ["--threads", str(threads)]
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def read(self) -> dict[str, Any]:
        """The next line that the process prints.

        Raises:
            RunnerError: it ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RunnerError(f"{self.peer.title} ended: see {self._log_file}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def take_round(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Has the prompts answered. What that took.

        Raises:
            RunnerError: the process ended, or answered with other than the tokens asked for.
        """
        assert self._process.stdin is not None
        wanted = {
            "prompts": [prompt.ids for prompt in prompts],
            "completion_tokens": COMPLETION_TOKENS,
        }
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        taken = self.read()
        if taken["completion_tokens"] != COMPLETION_TOKENS * len(prompts):
            raise RunnerError(f"{self.peer.title} made {taken['completion_tokens']} tokens")
        return taken

    def take_rounds(
        self, concurrency: int, prompts: Iterator[Prompt], rounds: int
    ) -> dict[str, Any]:
        """Takes so many rounds of as many prompts at once. Raises as `take_round`."""
        taken = [
            self.take_round(list(itertools.islice(prompts, concurrency))) for _ in range(rounds)
        ]
        tokens = sum(each["completion_tokens"] for each in taken)
        elapsed_s = sum(each["elapsed_s"] for each in taken)
        return {"tokens_per_s": round(tokens / elapsed_s, 2), "rounds": taken}

    def memory_bytes(self) -> int:
        """What the process and its children hold now."""
        return machine.memory_bytes(self._process.pid)

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Plan:
    """Which peers are measured, and how."""

    peers: Sequence[Library]
    dtype: str
    threads: int | None
    concurrencies: Sequence[int]
    repeats: int


def choose(names: Sequence[str]) -> list[Library]:
    """The peers of these names, ours last among them: it is what the others are compared with.

    Raises:
        SystemExit: there is no such peer.
    """
    known = {each.name: each for each in LIBRARIES}
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown peer {name!r}: choose from {', '.join(known)}")
    return sorted((known[name] for name in names), key=lambda each: each.name == OURS)


def take(plan: Plan, model: Path, tell: Callable[[str, parts.Part], None]) -> parts.Part:
    """Takes all runs. Tells of each, with what there is by then.

    Raises:
        RunnerError: a peer failed.
    """
    present = [each for each in plan.peers if each.environment is None or each.environment.is_there]
    absent = {
        each.title: each.environment.command
        for each in plan.peers
        if each.environment is not None and each not in present
    }
    part = parts.begin(
        "in process", dtype=plan.dtype, threads=plan.threads or "default", absent=absent
    )
    parts.LOGS.mkdir(parents=True, exist_ok=True)
    words = word_ids(model)
    with ExitStack() as stack:
        runners = []
        for peer in present:
            log_file = parts.LOGS / f"{peer.name}-{plan.dtype}.log"
            runner = Runner(peer, model, plan.dtype, plan.threads, log_file)
            stack.callback(runner.end)
            runners.append(runner)
        part["peers"] = {runner.peer.title: runner.read() for runner in runners}
        for run in _runs(runners, plan, words):
            part["runs"].append(run)
            tell(
                f"{run['peer']:28} {plan.dtype:9} {run['concurrency']:3} at once "
                f"{run['tokens_per_s']:8.1f} tokens/s, others took {run['others_cores']:.2f} cores",
                part,
            )
        part["memory_bytes"] = {each.peer.title: each.memory_bytes() for each in runners}
    part["is_complete"] = True
    return part


def _runs(
    runners: Sequence[Runner], plan: Plan, words: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    for concurrency in plan.concurrencies:
        able = [each for each in runners if concurrency in each.peer.concurrencies]
        for runner in able:
            # Uncounted: memory, caches and thread pools warm up. Until our KV cache, which takes
            # pages from the machine as it first uses them, has used them all.
            warm_up = random_prompts(words, PROMPT_TOKENS, f"warm up {concurrency}")
            for _ in range(WARM_UP_ROUNDS):
                runner.take_round([next(warm_up) for _ in range(concurrency)])
        for repeat in range(plan.repeats):
            for runner in able:
                prompts = random_prompts(words, PROMPT_TOKENS, f"{concurrency} {repeat}")
                load_average = machine.load_average()
                disturbance = machine.Disturbance()
                taken = runner.take_rounds(concurrency, prompts, ROUNDS[concurrency])
                yield {
                    "peer": runner.peer.title,
                    "concurrency": concurrency,
                    "repeat": repeat,
                    "load_average_1m_before": load_average,
                    "others_cores": disturbance.cores(),
                    **taken,
                }
