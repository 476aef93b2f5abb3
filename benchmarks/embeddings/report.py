"""The report of what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.results import machine_lines


def markdown(results: dict[str, Any]) -> str:
    """The report as Markdown."""
    compared = results["compared"]
    slowest = compared[0]["texts_per_s"]
    rows = "\n".join(
        f"| {each['way']} | {each['texts_per_s']:,.0f} | {each['texts_per_s'] / slowest:.1f} | "
        f"{_spread(each)} |"
        for each in compared
    )
    budgets = "\n".join(
        f"| {int(each['way']):,} | {each['texts_per_s']:,.0f} | {_spread(each)} |"
        for each in results["batch_tokens"]
    )
    return f"""\
# Embeddings, {results["taken_at"][:10]}

Texts per second of `{results["model"]}` in float32, threads: {results["threads"]},
texts: {results["texts"]}, of 3 to 250 words, most of some tens. Medians of
{len(compared[0]["rounds"])} rounds, in which the ways take turns. All of them compute the same
vectors. Made by `python -m benchmarks.embeddings`.

{machine_lines(results["machine"])}

| way | texts/s | ratio | lowest to highest |
|---|--:|--:|--:|
{rows}

One call of all texts, by `--batch-tokens`:

| tokens of a batch | texts/s | lowest to highest |
|--:|--:|--:|
{budgets}
"""


def _spread(measured: dict[str, Any]) -> str:
    return f"{min(measured['rounds']):,.0f} to {max(measured['rounds']):,.0f}"
