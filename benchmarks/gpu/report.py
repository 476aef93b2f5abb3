"""The report of what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import results


def markdown(content: dict[str, Any]) -> str:
    """The report."""
    return "\n".join(_lines(content))


def _lines(content: dict[str, Any]) -> Iterator[str]:
    graphs = "with" if content["cuda_graphs"] else "without"
    yield "# The default engine on a GPU\n"
    yield f"{content['taken_at']}, {content['device']}, {content['dtype']}, {graphs} CUDA graphs.\n"
    yield results.machine_lines(content["machine"])
    yield (
        f"\nA Llama of {content['weight_bytes'] / 1e9:.2f} GB of random weights; "
        f"{content['prompt_tokens']} tokens in, {content['steps']} out. Copying within the "
        f"device's memory goes at {content['copy_bytes_per_s'] / 1e9:.0f} GB/s: the floor of a "
        "step is the time of reading the weights at that. Continuous batching's figures include "
        "its prompts.\n"
    )
    prefill = content["prefill"]
    rate = f"{prefill['tokens_per_s']:.0f} tokens/s"
    yield f"A prompt of {prefill['tokens']} tokens is read at {rate}.\n"
    for peer, error in content["absent"].items():
        yield f"{peer} did not run: `{error}`\n"
    yield "| | sequences | step ms | tokens/s | floor of a step |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for run in content["runs"]:
        share = f"{run['floor_share']:.0%}" if "floor_share" in run else ""
        yield (
            f"| {run['who']} | {run['batch']} | {run['step_s'] * 1e3:.2f} "
            f"| {run['tokens_per_s']:.0f} | {share} |"
        )
    yield "\nTokens that a seeded sequence has in common with its output in the first batch:\n"
    for batch, equal in content["equal_tokens"].items():
        yield f"- among {batch}: {equal} of {content['steps']}"
    yield ""
