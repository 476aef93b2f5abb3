"""What a local mesh consists of: its processes, their command lines and their places on disk.

Nothing here starts anything. Ports are all free ports, chosen by the processes themselves: what a
process needs to know of another is an argument of the function that plans it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.mesh.options import API_KEYS_VARIABLE

LOOPBACK = "127.0.0.1"

# The first start of a worker may download weights from a hub.
WORKER_START_LIMIT_S = 3600.0
START_LIMIT_S = 60.0

# Together below the 10 s in which a mesh has to end: gateway and workers stop at the same time.
ENVOY_STOP_LIMIT_S = 1.5
SERVICE_STOP_LIMIT_S = 4.5
CONTROLLER_STOP_LIMIT_S = 2.0
# What running requests get: Envoy has cut off all clients before, so few still run.
GRACE_PERIOD_S = 2.0


RESPONSES_FILE = "responses.sqlite"
"""Where the gateway keeps responses, in the folder of the run."""


@dataclass(frozen=True)
class ServedModel:
    """A model that workers load: where it is, and what clients ask for; None for the default."""

    path: str | None = None
    names: str | None = None


@dataclass(frozen=True)
class MeshOptions:
    """What the user chose. `host` and `port` are Envoy's; all else listens on loopback only."""

    run_folder: Path
    host: str
    port: int
    models: tuple[ServedModel, ...]
    engine: str
    device: str
    workers: int
    """Of each model."""
    threads_per_worker: int
    controllers: int = 1
    api_keys: str = field(default="", repr=False)
    """Split by commas; for the gateway's environment, where nobody else sees them."""
    api_keys_file: Path | None = None
    routing_policy: str | None = None
    log_level: str = "info"
    worker_options: tuple[str, ...] = ()

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients must have a key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def own_key(self) -> str:
        """The key with which the mesh is asked whether it is ready; empty where none is needed."""
        return self.api_keys.split(",")[0].strip()

    @property
    def client_address(self) -> str:
        """ "host:port" at which clients on this machine connect."""
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True)
class ProcessPlan:
    """One process: how to start it, how long to wait for it, and where it writes."""

    name: str
    """Unique in the mesh, such as "worker-1"."""
    job: str
    """What it is for Prometheus: controller, worker, gateway or envoy."""
    command: tuple[str, ...]
    ready_file: Path | None
    """Written by the process once it can be used; None for Envoy, which is asked."""
    log_file: Path
    start_limit_s: float
    stop_limit_s: float
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of this process alone."""
    loads: str | None = None
    """The model that it loads first, which may take long."""


def usable_cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_per_worker(cores: int, workers: int) -> int:
    """Threads for each worker's engine, so that all workers together use each core once."""
    return max(1, cores // workers)


def _service(
    options: MeshOptions,
    job: str,
    name: str,
    arguments: Sequence[str],
    *,
    start_limit_s: float = START_LIMIT_S,
    stop_limit_s: float = SERVICE_STOP_LIMIT_S,
    loads: str | None = None,
) -> ProcessPlan:
    """A process of one of our services, with the options that all of them have."""
    ready_file = options.run_folder / f"{name}.ready.json"
    return ProcessPlan(
        name=name,
        job=job,
        command=(
            # -P: a folder named "services" where the command runs must not hide ours.
            *(sys.executable, "-P", "-m", f"services.{job}"),
            *("--host", LOOPBACK, "--port", "0", "--metrics-port", "0"),
            *("--ready-file", str(ready_file)),
            *("--log-level", options.log_level, "--log-format", "console"),
            *arguments,
        ),
        ready_file=ready_file,
        log_file=options.run_folder / f"{name}.log",
        start_limit_s=start_limit_s,
        stop_limit_s=stop_limit_s,
        loads=loads,
    )


def controllers(options: MeshOptions) -> list[ProcessPlan]:
    """The controllers, which need not know of each other. One alone has no number."""
    names = [f"controller-{number}" for number in range(1, options.controllers + 1)]
    return [
        _service(options, "controller", name, ("--id", name), stop_limit_s=CONTROLLER_STOP_LIMIT_S)
        for name in (names if len(names) > 1 else ["controller"])
    ]


def _each_of(controllers: Sequence[str]) -> list[str]:
    """The option that names every controller."""
    return [argument for address in controllers for argument in ("--controller", address)]


def workers(options: MeshOptions, controllers: Sequence[str]) -> list[ProcessPlan]:
    """The workers of each model, which attach to every controller."""
    served = [model for model in options.models for _ in range(options.workers)]
    return [
        _service(
            options,
            "worker",
            f"worker-{number}",
            (
                *(*_each_of(controllers), "--worker-id", f"worker-{number}"),
                *("--engine", options.engine),
                *(("--model-path", model.path) if model.path else ()),
                *(("--model-names", model.names) if model.names else ()),
                *("--device", options.device, "--threads", str(options.threads_per_worker)),
                *("--grace-period", str(GRACE_PERIOD_S)),
                *options.worker_options,
            ),
            start_limit_s=WORKER_START_LIMIT_S,
            loads=model.path,
        )
        for number, model in enumerate(served, 1)
    ]


def gateway(options: MeshOptions, controllers: Sequence[str]) -> ProcessPlan:
    """The gateway, which watches every controller."""
    policy = ("--routing-policy", options.routing_policy) if options.routing_policy else ()
    keys_file = ("--api-keys-file", str(options.api_keys_file)) if options.api_keys_file else ()
    planned = _service(
        options,
        "gateway",
        "gateway",
        (
            *(*_each_of(controllers), "--grace-period", str(GRACE_PERIOD_S), *policy, *keys_file),
            # The folder outlives the mesh: so do conversations.
            *("--responses-db", str(options.run_folder / RESPONSES_FILE)),
        ),
    )
    return replace(planned, secrets={API_KEYS_VARIABLE: options.api_keys})


def envoy(options: MeshOptions, command: Sequence[str]) -> ProcessPlan:
    """Envoy, which `command` runs."""
    return ProcessPlan(
        name="envoy",
        job="envoy",
        command=tuple(command),
        ready_file=None,
        log_file=options.run_folder / "envoy.log",
        start_limit_s=START_LIMIT_S,
        stop_limit_s=ENVOY_STOP_LIMIT_S,
    )
