"""constraints.txt pins what pyproject.toml asks for, for any machine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)")


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    matches = [PINNED.fullmatch(line) for line in lines]
    assert [line for line, match in zip(lines, matches, strict=True) if match is None] == []
    return {canonicalize_name(match[1]): match[2] for match in matches if match is not None}


# Each CUDA build of torch asks for a version of its own.
UNPINNED = frozenset({"triton"})


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(each for extra in extras for each in extra)]
    return [each for each in asked if canonicalize_name(Requirement(each).name) not in UNPINNED]


@pytest.mark.parametrize("requirement", requirements())
def test_what_is_asked_for_is_pinned_at_a_version_that_will_do(requirement: str) -> None:
    asked = Requirement(requirement)
    assert asked.specifier.contains(pins()[canonicalize_name(asked.name)])


def test_the_order_is_that_of_the_alphabet() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert lines == sorted(lines, key=str.lower)
