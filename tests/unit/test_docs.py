"""The documents name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"))
    if path.is_file()
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
NAMED_FILE = re.compile(
    r"`((?:services|proto|deploy|tests|scripts|examples|benchmarks|gateway|worker|controller|mesh|cli)"
    r"/[\w./-]+\.(?:py|proto|yaml|sh|lua|json))`"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_are_there(document: Path) -> None:
    named = NAMED_FILE.findall(document.read_text())
    folders = (ROOT, ROOT / "services")
    assert [name for name in named if not any((each / name).exists() for each in folders)] == []
