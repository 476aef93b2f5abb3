"""The report of what a token costs a gateway's core, in Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.results import machine_lines
from benchmarks.tables import table

Run = dict[str, Any]


def _median(runs: list[Run], *path: str) -> float:
    values: list[float] = []
    for run in runs:
        value: Any = run
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def _of(runs: list[Run], **wanted: Any) -> list[Run]:
    return [run for run in runs if all(run[key] == wanted[key] for key in wanted)]


def _cases(runs: list[Run]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((run["pace"], run["target"]) for run in runs))


def _cost_rows(runs: list[Run], checkouts: list[str]) -> list[list[str]]:
    rows = []
    for pace, case in _cases(runs):
        rates, costs = [], []
        medians_us: list[float] = []
        for checkout in checkouts:
            mine = _of(runs, pace=pace, target=case, checkout=checkout)
            if not mine:
                rates.append("")
                costs.append("")
                continue
            median_us = _median(mine, "cpu_us_per_token", "gateway")
            spread_us = [run["cpu_us_per_token"]["gateway"] for run in mine]
            rates.append(f"{1e6 / median_us:,.0f}")
            costs.append(f"{median_us:.1f} ({min(spread_us):.0f} to {max(spread_us):.0f})")
            medians_us.append(median_us)
        row = [f"{case}, {pace}", *rates, *costs]
        if len(checkouts) > 1:
            both = len(medians_us) == len(checkouts)
            row.append(f"{medians_us[0] / medians_us[1] - 1:+.1%}" if both else "")
        rows.append(row)
    return rows


def _other_rows(runs: list[Run], checkouts: list[str]) -> list[list[str]]:
    rows = []
    for pace, case in _cases(runs):
        row = [f"{case}, {pace}"]
        for path, form in (
            (("chunks_per_token",), "{:.2f}"),
            (("cpu_us_per_token", "worker"), "{:.1f}"),
            (("cpu_us_per_token", "envoy"), "{:.1f}"),
        ):
            for checkout in checkouts:
                mine = _of(runs, pace=pace, target=case, checkout=checkout)
                row.append(form.format(_median(mine, *path)) if mine else "")
        rows.append(row)
    return rows


def markdown(content: dict[str, Any]) -> str:
    """The report of the content of a results file."""
    runs: list[Run] = content["runs"]
    checkouts: dict[str, str] = content["checkouts"]
    names = list(checkouts)
    cost_head = ["asked", *(f"{name}: tokens per CPU second" for name in names)]
    cost_head += [f"{name}: µs per token (least to most)" for name in names]
    if len(names) > 1:
        cost_head.append("a token here against beside")
    other_head = ["asked"]
    for what in ("chunks per token", "worker's µs per token", "Envoy's µs per token"):
        other_head += [f"{name}: {what}" for name in names]
    loads = [run["load_average_1m"] for run in runs]
    errors = sum(run["errors"] for run in runs)
    absent = "".join(f"- {each}\n" for each in content["absent"])
    return f"""# What a token costs a gateway's core, {content["taken_at"][:10]}

Written from the results file beside it by `make bench-gateway`; not by hand. CPU is user and system
time of a process, read before and after each run, so that it tells little of what else the machine
did; but others that fight for the same caches make it more, and merging makes it less: compare
where as many chunks came for each token.
{content["concurrency"]} streams through Envoy, {content["duration_s"]:g} s a run; medians of
{content["rounds"]} rounds, in which checkouts took turns. {errors} of
{sum(run["requests"] for run in runs) + errors:,} requests failed.

*Paced*: tokens of a stream come one by one, as a model makes them. *At once*: the engine has all of
them ready, so that many wait, and are merged; what a token costs then hangs on how many. Chunks are
server-sent events, those of an answer's beginning and end among them, or messages.

{machine_lines(content["machine"])}
- load average during the runs {min(loads):g} to {max(loads):g}
{"".join(f"- {name}: commit {commit}{chr(10)}" for name, commit in checkouts.items())}{absent}
## The gateway

{table(cost_head, _cost_rows(runs, names))}

## Beside it

{table(other_head, _other_rows(runs, names))}
"""
