"""Writes what a run brought to light: Markdown for people, JSON with every fault and failure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from tests.chaos.faults import FaultKind, Service
from tests.chaos.profiles import PROFILES
from tests.chaos.run import Run
from tests.chaos.verdict import Outcome

MAX_DETAILS = 200
QUANTILES = (0.5, 0.99)


def command(run: Run) -> str:
    """What runs the same schedule again."""
    profile = run.profile
    asked = f"--profile {profile.name} --seed {run.seed}"
    if profile.duration_s != PROFILES[profile.name].duration_s:
        asked += f" --minutes {profile.duration_s / 60:g}"
    return f".venv/bin/python -m tests.chaos {asked}"


def findings(run: Run) -> dict[str, Any]:
    """All of it, as JSON holds it."""
    verdict = run.verdict
    undone = verdict.of(Outcome.FAILED, Outcome.DIFFERING)
    return {
        "command": command(run),
        "profile": run.profile.name,
        "seed": run.seed,
        "machine": machine.describe(),
        "duration_s": round(run.duration_s, 1),
        "clients": run.profile.clients + run.profile.demo_clients,
        "layout": asdict(run.profile.layout),
        "networks": run.why_not_cut or "cut",
        "requests": {outcome.value: verdict.count(outcome) for outcome in Outcome},
        "complaints": verdict.complaints,
        "reasons": {
            outcome.value: dict(verdict.reasons(outcome).most_common(MAX_DETAILS))
            for outcome in Outcome
            if outcome is not Outcome.EQUAL
        },
        "failures": [
            {
                "request_id": each.exchange.request_id,
                "question": each.exchange.question.name,
                "outcome": each.outcome.value,
                "why": each.why,
            }
            for each in undone[:MAX_DETAILS]
        ],
        "resumes": run.resumes.causes(),
        "resume_gap_ms": {f"p{q * 100:g}": run.resumes.gap_ms(q) for q in QUANTILES},
        "faults": [
            {
                **asdict(each.fault),
                "service": each.service.value,
                "back_after_s": None
                if each.back_s is None
                else round(each.back_s - each.began_s, 2),
            }
            for each in run.suffered
        ],
        "memory": [asdict(growth) for growth in run.growths],
    }


def text(run: Run) -> str:
    """The report."""
    return "\n".join([*_head(run), *_requests(run), *_faults(run), *_memory(run), *_trouble(run)])


def write(run: Run, folder: Path, name: str) -> Path:
    """Writes NAME.md and NAME.json, and returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(findings(run), indent=1) + "\n")
    report = folder / f"{name}.md"
    report.write_text(text(run) + "\n")
    return report


def _head(run: Run) -> list[str]:
    layout, described = run.profile.layout, machine.describe()
    return [
        f"# Chaos: seed {run.seed}",
        "",
        f"`{command(run)}`, commit {described['commit']}",
        "",
        f"{run.duration_s:.0f} s on {described['cores']} cores ({described['cpu']}): "
        f"{run.profile.clients + run.profile.demo_clients} clients at once through Envoy, "
        f"{layout.gateways} gateways, {layout.controllers} controllers, "
        f"{layout.scripted_workers} workers with the scripted engine"
        + (f", {layout.demo_workers} with the demo model" if layout.demo_workers else "")
        + ". Every answer is compared with the one that the undisturbed mesh gave.",
        "",
    ]


def _requests(run: Run) -> list[str]:
    verdict = run.verdict
    gaps = [run.resumes.gap_ms(quantile) for quantile in QUANTILES]
    told = " / ".join("none" if gap is None else f"{gap:.0f} ms" for gap in gaps)
    resumed = sum(run.resumes.causes().values())
    return [
        "| requests | |",
        "|---|---|",
        f"| all | {len(verdict.judged)} |",
        f"| failed | {verdict.count(Outcome.FAILED)} |",
        f"| differing from the undisturbed answer | {verdict.count(Outcome.DIFFERING)} |",
        f"| rejected with 429 | {verdict.count(Outcome.REJECTED)} |",
        "| lost with their gateway, which was killed while it held the client's stream "
        f"| {verdict.count(Outcome.LOST_WITH_GATEWAY)} |",
        f"| went on on another worker | {resumed} times |",
        f"| gap of a resume beyond the new prefill, p50 / p99 | {told} |",
        "",
    ]


def _faults(run: Run) -> list[str]:
    counts = Counter((each.service, each.fault.kind) for each in run.suffered)
    rows = [
        f"| {service.value} | "
        + " | ".join(str(counts[service, kind]) for kind in FaultKind)
        + " |"
        for service in Service
    ]
    head = " | ".join(kind.value for kind in FaultKind)
    note = [f"No network was cut: {run.why_not_cut}.", ""] if run.why_not_cut else []
    return [f"| faults | {head} |", "|---|" + "---|" * len(FaultKind), *rows, "", *note]


def _memory(run: Run) -> list[str]:
    if not run.growths:
        return []
    rows = [
        f"| {growth.process} | {growth.over_s:.0f} s | {growth.first_kib / 1024:.1f} | "
        f"{growth.last_kib / 1024:.1f} |"
        for growth in run.growths
    ]
    return [
        "Resident memory over the longest life of each process, after its first minute:",
        "",
        "| process | over | MiB at first | MiB at last |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _trouble(run: Run) -> list[str]:
    verdict = run.verdict
    lines: list[str] = []
    for outcome in (Outcome.FAILED, Outcome.DIFFERING, Outcome.REJECTED):
        for why, count in verdict.reasons(outcome).most_common(10):
            lines.append(f"- {count} {outcome.value}: {why}")
    lines += [f"- {complaint.splitlines()[0]}" for complaint in verdict.complaints]
    return ["What went wrong:", "", *lines] if lines else []
