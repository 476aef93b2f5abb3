"""`make help` is how one finds everything else."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> str:
    """What make prints. It knows nothing of the make that may run the tests."""
    printed = subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return printed.replace("\\\n", " ")


def test_help_lists_every_target_with_what_it_does() -> None:
    phony = re.search(r"^\.PHONY: (.*(?:\\\n.*)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = phony[1].replace("\\\n", " ").split()
    listed = dict(line.split(maxsplit=1) for line in make("help").splitlines())
    assert sorted(listed) == sorted(targets)


def test_help_is_what_make_does_by_itself() -> None:
    assert make() == make("help")


def test_run_hands_on_what_was_chosen_and_nothing_else() -> None:
    # -o: the environment that runs this test is set up already.
    installed = ("-n", "-o", ".venv/.installed-for-running")
    assert make(*installed, "run").split() == ["exec", ".venv/bin/tokenmesh", "up"]
    chosen = make(*installed, "run", "MODEL=my model", "DEVICE=cpu", "PORT=9000", "WORKERS=2")
    assert "--model 'my model' --device 'cpu' " in chosen
    assert "--port '9000' --workers '2'" in chosen
