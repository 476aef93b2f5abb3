"""The report of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import results
from benchmarks.tables import table

_KINDS = {"free": "free sequences", "held": "held sequences", "all": "all together"}


def markdown(content: dict[str, Any]) -> str:
    """The report."""
    return "\n".join(_lines(content))


def _lines(content: dict[str, Any]) -> Iterator[str]:
    yield "# Outputs held to forms\n"
    yield f"{content['taken_at']}\n"
    yield results.machine_lines(content["machine"])
    yield ""
    if "libraries" in content:
        yield from _libraries(content["libraries"])
    if "batch" in content:
        yield from _batch(content["batch"])


def _libraries(taken: list[dict[str, Any]]) -> Iterator[str]:
    yield "## The libraries\n"
    yield (
        "Each walks through texts that have the form, token by token: five times, compiled anew "
        "each time, on one thread. Medians; `p99` and `most` are of all masks of a form."
    )
    for each in taken:
        if each.get("absent"):
            yield f"\n{each['library']} was not installed: `--install-peer`\n"
            continue
        yield f"\n### {each['library']} over the vocabulary: {each['vocabulary']}\n"
        yield (
            f"{each['tokens']:,} tokens; made ready in {each['ready_s']:.2f} s, "
            f"{each['memory_bytes'] / 2**20:.0f} MiB. While it masks without a pause, another "
            f"thread of Python runs at {each['interpreter_share']:.0%} of its speed. Others took "
            f"{each['others_cores']} cores meanwhile.\n"
        )
        head = ("form", "tokens", "compile ms", "mask µs", "p99 µs", "most µs", "accept µs")
        yield table(head, [_case(case) for case in each["cases"]])
    keywords = {
        each["library"]: each["keywords"]
        for each in taken
        if not each.get("absent") and each["vocabulary"] == taken[0]["vocabulary"]
    }
    yield "\n### JSON schema keywords\n"
    yield "*passed over*: a value that the keyword forbids is let through without a word.\n"
    names = next(iter(keywords.values()))
    yield table(
        ("keyword", *keywords),
        [(name, *(found[name] for found in keywords.values())) for name in names],
    )
    yield ""


def _case(case: dict[str, Any]) -> tuple[str, ...]:
    if "refused" in case:
        return (f"{case['case']}: refused {case['refused']}", *[""] * 6)
    masks = sorted(case["mask_s"])
    return (
        case["case"],
        f"{case['tokens']}",
        f"{case['compile_s'] * 1e3:.2f}",
        f"{statistics.median(masks) * 1e6:.1f}",
        f"{masks[int(len(masks) * 0.99)] * 1e6:.0f}",
        f"{masks[-1] * 1e6:.0f}",
        f"{case['accept_s'] * 1e6:.1f}",
    )


def _batch(taken: list[dict[str, Any]]) -> Iterator[str]:
    yield "## In the engine's batch\n"
    yield (
        "16 sequences at once, of which some are held to a JSON schema that has no end within "
        "their 64 tokens. Tokens per second, and in brackets against none held: medians of rounds "
        "that took turns. Of the rates of single sequences, the mean over those of a kind."
    )
    for each in taken:
        yield (
            f"\n### {each['model']}, {each['vocabulary']:,} tokens of vocabulary\n\n"
            f"A mask took {each['mask_s'] / each['masks'] * 1e6:.0f} µs, beside the model's "
            f"computing; {each['rounds']} rounds of each kind. Others took "
            f"{each['others_cores']} cores meanwhile.\n"
        )
        none = each["kinds"]["0"]
        base = {"free": none["free"], "held": none["free"], "all": none["all"]}
        rows = []
        for held, figures in each["kinds"].items():
            cells = [
                f"{figures[kind]:.1f} ({figures[kind] / base[kind]:.0%})" if kind in figures else ""
                for kind in _KINDS
            ]
            rows.append((f"{held} of 16 held", *cells))
        yield table(("", *_KINDS.values()), rows)
    yield ""
