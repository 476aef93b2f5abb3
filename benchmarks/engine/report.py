"""The report of what was measured of the engine, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.engine import bars
from benchmarks.engine.in_process import COMPLETION_TOKENS, PROMPT_TOKENS
from benchmarks.engine.parts import Part
from benchmarks.results import machine_lines
from benchmarks.tables import table


def join(parts: Sequence[Part]) -> dict[str, Any]:
    """The content of one results file, dated by the latest part.

    Raises:
        SystemExit: nothing was measured.
    """
    if not parts:
        raise SystemExit("nothing was measured yet: see python -m benchmarks.engine --help")
    latest = max(parts, key=lambda part: part["taken_at"])
    return {"taken_at": latest["taken_at"], "machine": latest["machine"], "parts": parts}


def _unique(part: Part, key: str) -> list[Any]:
    return list(dict.fromkeys(run[key] for run in part["runs"]))


def _comparison(part: Part) -> str:
    """Tokens/s of all peers, and ours as so many times theirs."""
    concurrencies = _unique(part, "concurrency")
    ours = bars.OURS_SERVED if part["kind"] == "served" else bars.OURS
    head = ["", *(f"tokens/s, {each} at once" for each in concurrencies)]
    head += [f"ours / it, {each} at once" for each in concurrencies]
    rows = []
    for peer in _unique(part, "peer"):
        rates = [bars.rates(part, peer, each) for each in concurrencies]
        row = [peer, *(_middle_and_range(each) for each in rates)]
        for concurrency, its in zip(concurrencies, rates, strict=True):
            own = bars.rates(part, ours, concurrency)
            is_other = own and its and peer != ours
            times = statistics.median(own) / statistics.median(its) if is_other else None
            row.append("" if times is None else f"{times:.2f}")
        rows.append(row)
    return table(head, rows)


def _middle_and_range(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def _first_tokens(part: Part) -> str:
    """Median times to the first token of the servers that stream."""
    rows = []
    for peer in _unique(part, "peer"):
        runs = [run for run in part["runs"] if run["peer"] == peer and "first_token_ms" in run]
        if not runs:
            continue
        row = [peer]
        for concurrency in _unique(part, "concurrency"):
            at = [run for run in runs if run["concurrency"] == concurrency]
            for kind, key in (("first_token_ms", "p50"), ("gap_ms", "p50"), ("gap_ms", "p99")):
                values = [run[kind][key] for run in at if run[kind]]
                row.append(f"{statistics.median(values):,.1f}" if values else "")
        rows.append(row)
    head = [""]
    for concurrency in _unique(part, "concurrency"):
        names = ("TTFT p50", "gap p50", "gap p99")
        head += [f"{name} ms, {concurrency} at once" for name in names]
    return table(head, rows) if rows else ""


def _conditions(part: Part) -> str:
    loads = [run["load_average_1m_before"] for run in part["runs"]]
    text = (
        f"Taken at {part['taken_at']}, threads: {part['threads']}; commit "
        f"{part['machine']['commit']}; load average {part['machine']['load_average_1m_before']} "
        f"before the first process started, and {min(loads)} to {max(loads)} before the runs, "
        "which includes the runs before them."
    )
    others = [run["others_cores"] for run in part["runs"] if "others_cores" in run]
    if others:
        text += f" Other processes took up to {max(others):.2f} cores during a run."
    if not part["is_complete"]:
        text += "\n**It was ended before all runs were taken.**"
    for title, command in part.get("absent", {}).items():
        text += f"\n{title} was absent: `{command}` installs it."
    errors = sum(run.get("errors", 0) for run in part["runs"])
    return text + (f"\n**{errors} requests failed.**" if errors else "")


def _in_process(part: Part) -> str:
    versions = "; ".join(
        f"{title}: {', '.join(f'{name} {each}' for name, each in about['versions'].items())}"
        for title, about in part["peers"].items()
    )
    text = f"{_comparison(part)}\n\n{_conditions(part)}\n{versions}."
    memory = ", ".join(
        f"{title} {taken / 2**20:,.0f} MiB" for title, taken in part.get("memory_bytes", {}).items()
    )
    return f"{text}\nMemory in the end: {memory}." if memory else text


def _served(part: Part) -> str:
    return f"{_comparison(part)}\n\n{_first_tokens(part)}\n\n{_conditions(part)}"


def _own(part: Part) -> str:
    """A scenario of our engine alone: what was set, and what came of it."""
    columns = list(dict.fromkeys(column for run in part["runs"] for column in run["shown"]))
    rows = [
        [run["case"], *(str(run["shown"].get(column, "")) for column in columns)]
        for run in part["runs"]
    ]
    return f"{part['about']}\n\n{table(['', *columns], rows)}\n\n{_conditions(part)}"


_SECTIONS: Mapping[str, Callable[[Part], str]] = {"in process": _in_process, "served": _served}


def markdown(content: dict[str, Any]) -> str:
    """The report of the content of a results file."""
    parts: list[Part] = content["parts"]
    text = f"""# The default engine beside its peers, {content["taken_at"][:10]}

Written from the results file beside it by `python -m benchmarks.engine report`; not by hand. A
Llama of 41.7 million random weights (8 layers, hidden size 512), {PROMPT_TOKENS} prompt tokens in,
{COMPLETION_TOKENS} out, greedy, past ends of text, random prompts that are all different. As many
prompts at once as is told, then the next as many. Each peer is a process of its own; all are loaded
before the first is measured, and they take turns. Values are medians of the runs, their range in
brackets.

{machine_lines(content["machine"])}

## What is to be reached

{table(["", "at least", "measured", ""], list(bars.rows(parts)))}
"""
    for part in parts:
        title = part.get("title", part["kind"].capitalize())
        text += f"\n## {title}, {part['dtype']}\n\n{_SECTIONS.get(part['kind'], _own)(part)}\n"
    return text
