"""Keeps what was measured: the numbers as JSON, and beside them the report that is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

Content = Mapping[str, Any]


def keep(
    content: Content, markdown: Callable[[dict[str, Any]], str], name: str = "", *, folder: Path
) -> tuple[Path, str]:
    """Writes both files, named after `taken_at`.

    The report is made of what was written, so it can be made again. Returns the path of the JSON
    and the report.
    """
    taken_at = datetime.fromisoformat(content["taken_at"])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{taken_at:%Y-%m-%d-%H%M}{name}.json"
    target.write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(json.loads(target.read_text()))
    target.with_suffix(".md").write_text(text)
    return target, text


def machine_lines(machine: Content) -> str:
    """The machine as list items: what it is, how busy it was, what ran on it."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return f"""\
- {machine["cpu"]}, {machine["cores"]} cores, {machine["memory"]}, Linux {machine["kernel"]},
  load average before {machine["load_average_1m_before"]}
- Python {machine["python"]}, {packages}; commit {machine["commit"]}"""
