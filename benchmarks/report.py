"""The report of a results file, in Markdown.

python -m benchmarks.report RESULTS.json > REPORT.md
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import machine_lines
from benchmarks.tables import table

Run = dict[str, Any]


def _unique(runs: Sequence[Run], key: str) -> list[Any]:
    return list(dict.fromkeys(run[key] for run in runs))


class _Results:
    """The runs, found by what they measured. A value is the median over the repeats."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self.targets: list[str] = _unique(runs, "target")
        self.concurrencies: list[int] = _unique(runs, "concurrency")
        self.jobs: list[str] = list(runs[0]["cpu_us_per_token"])
        self.stream_tokens: int = max(_unique(runs, "completion_tokens"))

    def median(self, *path: str, **wanted: Any) -> float:
        """The median of the value at a path of keys, over the runs that are as wanted."""
        found: list[float] = []
        for run in self._runs:
            if all(run[key] == wanted[key] for key in wanted):
                value: Any = run
                for key in path:
                    value = value[key]
                found.append(value)
        return statistics.median(found)


def _throughput(results: _Results) -> str:
    head = ["asked", *(f"requests/s, {each} at once" for each in results.concurrencies)]
    head += [f"tokens/s, {each} at once" for each in results.concurrencies]
    rows = []
    for target in results.targets:
        row = [target]
        for tokens, key in ((1, "requests_per_s"), (results.stream_tokens, "tokens_per_s")):
            for concurrency in results.concurrencies:
                value = results.median(
                    key,
                    pace="instant",
                    target=target,
                    completion_tokens=tokens,
                    concurrency=concurrency,
                )
                row.append(f"{value:,.0f}")
        rows.append(row)
    return table(head, rows)


def _added_latency(results: _Results) -> str:
    def at(target: str, key: str) -> float:
        return results.median(
            "request_ms",
            key,
            pace="instant",
            target=target,
            completion_tokens=1,
            concurrency=1,
        )

    direct = results.targets[0]
    rows = []
    for target in results.targets:
        row = [target, f"{at(target, 'p50'):.2f} ms", f"{at(target, 'p99'):.2f} ms"]
        for key in ("p50", "p99"):
            added = at(target, key) - at(direct, key)
            row.append("" if target == direct else f"{added:+.2f} ms")
        rows.append(row)
    return table(["asked", "median", "p99", "added, median", "added, p99"], rows)


def _evenness(results: _Results) -> str:
    rows = []
    for target in results.targets:
        for concurrency in results.concurrencies:
            where = {"pace": "paced", "target": target, "concurrency": concurrency}
            spreads = [
                f"{results.median(kind, key, **where):.2f} ms"
                for kind in ("first_token_ms", "gap_ms")
                for key in ("p50", "p99")
            ]
            tokens_per_s = f"{results.median('tokens_per_s', **where):,.0f}"
            rows.append([target, str(concurrency), *spreads, tokens_per_s])
    head = ["asked", "at once", "TTFT, median", "TTFT, p99", "gap, median", "gap, p99", "tokens/s"]
    return table(head, rows)


def _processor_time(results: _Results) -> str:
    concurrency = results.concurrencies[1]
    rows = []
    for target in results.targets:
        for tokens, unit in ((1, "request"), (results.stream_tokens, "token")):
            where = {"pace": "instant", "completion_tokens": tokens, "concurrency": concurrency}
            used = [
                f"{results.median('cpu_us_per_token', job, target=target, **where):,.0f} µs"
                for job in results.jobs
            ]
            rows.append([f"{target}, {unit}", *used])
    return table([f"asked, {concurrency} at once", *results.jobs], rows)


def _beside_a_peer(mesh: _Results, peer: _Results) -> str:
    """The mesh over REST, and a peer before a server that answers at once."""

    def row(results: _Results, pace: str, target: str, direct: str) -> list[str]:
        where = {"pace": pace, "concurrency": 1, "completion_tokens": 1}
        added = results.median("request_ms", "p50", target=target, **where) - results.median(
            "request_ms", "p50", target=direct, **where
        )
        cells = [target, "" if target == direct else f"{added:+.2f} ms"]
        for tokens, key in ((1, "requests_per_s"), (mesh.stream_tokens, "tokens_per_s")):
            for concurrency in peer.concurrencies:
                where = {"pace": pace, "concurrency": concurrency, "completion_tokens": tokens}
                cells.append(f"{results.median(key, target=target, **where):,.0f}")
        return cells

    head = ["asked", "added, median"]
    head += [f"requests/s, {each} at once" for each in peer.concurrencies]
    head += [f"tokens/s, {each} at once" for each in peer.concurrencies]
    rows = [row(mesh, "instant", mesh.targets[-1], mesh.targets[0])]
    rows += [row(peer, "peer", target, peer.targets[0]) for target in peer.targets]
    return table(head, rows)


def markdown(content: dict[str, Any]) -> str:
    """The report of the content of a results file."""
    machine = content["machine"]
    runs: list[Run] = content["runs"]
    results = _Results([run for run in runs if run["pace"] != "peer"])
    peer_runs = [run for run in runs if run["pace"] == "peer"]
    errors = sum(run["errors"] for run in runs)
    text = f"""# What the mesh itself costs, {content["taken_at"][:10]}

Written from the results file beside it by `make bench`; not by hand. The scripted engine computes
nothing, so what is measured is the mesh: worker, gateway and Envoy, each one process, and the load
generator, all on the same {machine["cores"]} cores. Values are medians of repeated runs.
{errors} of {sum(run["requests"] for run in runs) + errors:,} requests failed.

{machine_lines(machine)}

*worker*: its Generate stream, as a gateway calls it. *gateway*: ChatService over gRPC. *mesh*:
through Envoy, ChatService over gRPC or OpenAI's chat completions over HTTP/1.1.

## Throughput, engine without delay

Requests of one token each; streams of {results.stream_tokens} tokens each.

{_throughput(results)}

## Added latency

Requests of one token, one at a time.

{_added_latency(results)}

## Evenness, engine with a token every 10 ms

Streams of {results.stream_tokens} tokens. A gap is the time between two arrivals at the client.

{_evenness(results)}

## Processor time

For each request of one token, and for each token of a stream.

{_processor_time(results)}
"""
    if not peer_runs:
        return text
    return f"""{text}
## Beside LiteLLM

In the same session: LiteLLM's proxy, one process, before an OpenAI-compatible server that answers
at once, asked over REST as the mesh is. What is added is against asking what stands behind.

{_beside_a_peer(results, _Results(peer_runs))}
"""


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())), end="")
