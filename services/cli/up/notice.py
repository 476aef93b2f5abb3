"""What a running local mesh tells others: its addresses, for people, tools and Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

NOTICE_FILE = "mesh.json"
TARGETS_FILE = "prometheus-targets.json"
RUNS_FOLDER = ".run"


@dataclass(frozen=True)
class ProcessNotice:
    """One process of the mesh."""

    name: str
    job: str
    process_id: int
    address: str
    metrics_address: str
    """Of an HTTP server; `metrics_path` is where it serves."""
    metrics_path: str
    log_file: str


@dataclass(frozen=True)
class MeshNotice:
    """A mesh that is ready."""

    process_id: int
    """Of `tokenmesh up`."""
    base_url: str
    """For OpenAI clients: ends in /v1."""
    grpc_address: str
    models: tuple[str, ...]
    run_folder: str
    processes: tuple[ProcessNotice, ...]
    asks_for_keys: bool = False
    """Whether clients must have a key. Which, nothing tells."""
    capabilities: dict[str, list[str]] = field(default_factory=dict)
    """What the models can do, by their own names, such as "CHAT" and "EMBED"."""

    @property
    def envoy(self) -> ProcessNotice:
        """The Envoy of the mesh."""
        return next(process for process in self.processes if process.job == "envoy")

    def addresses(self, job: str) -> list[str]:
        """The addresses of all processes of one job."""
        return [process.address for process in self.processes if process.job == job]


def _write(path: Path, content: object) -> None:
    """Writes JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def write_notice(path: Path, notice: MeshNotice) -> None:
    """Writes the notice as JSON."""
    _write(path, asdict(notice))


def read_notice(path: Path) -> MeshNotice | None:
    """The notice in a file; None where there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    processes = tuple(ProcessNotice(**process) for process in content.pop("processes"))
    models = tuple(content.pop("models"))
    return MeshNotice(**content, models=models, processes=processes)


def write_prometheus_targets(path: Path, processes: tuple[ProcessNotice, ...]) -> None:
    """Writes what Prometheus reads as a file_sd_configs file."""
    _write(
        path,
        [
            {
                "targets": [process.metrics_address],
                "labels": {
                    "job": process.job,
                    "process": process.name,
                    "__metrics_path__": process.metrics_path,
                },
            }
            for process in processes
        ],
    )


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def running_meshes(start: Path) -> Iterator[MeshNotice]:
    """The meshes that run from this folder or one above it, the newest first."""
    folders = (start, *start.parents)
    files = [file for folder in folders for file in folder.glob(f"{RUNS_FOLDER}/*/{NOTICE_FILE}")]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        notice = read_notice(file)
        if notice is not None and _is_alive(notice.process_id):
            yield notice
