"""The tables of docs/api.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "api.md"

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_TABLE = re.compile(r"^\|.*\n\|[-|]+\|\n(?:\|.*\n)+", re.MULTILINE)
_NAMED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Table:
    """One table: the head's cells, and those of the rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def named(self) -> set[str]:
        """What stands between backticks in the first column."""
        return {name for row in self.rows for name in _NAMED.findall(row[0])}


def tables(heading: str) -> list[Table]:
    """The tables of one section, in order."""
    return [_table(match[0]) for match in _TABLE.finditer(_section(heading))]


def _section(heading: str) -> str:
    text = DOCUMENT.read_text()
    starts = [(match[1], match.end()) for match in _HEADING.finditer(text)]
    for at, (found, start) in enumerate(starts):
        if found == heading:
            end = starts[at + 1][1] if at + 1 < len(starts) else len(text)
            return text[start:end]
    raise LookupError(f"{DOCUMENT.name} has no section {heading!r}")


def _table(text: str) -> Table:
    head, _, *rows = (_cells(line) for line in text.splitlines())
    return Table(head, tuple(rows))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def subjects(cell: str) -> Iterator[str]:
    """What a first cell is about: "`a`, `b` with `c`" is about "a" and "b with c"."""
    for part in cell.split(", "):
        yield part.replace("`", "")
