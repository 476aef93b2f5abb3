"""What can be set about a worker. A value that cannot be stops the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.mesh.errors import StartError
from services.mesh.exposure import check_service_exposure
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings

MAX_PORT = 65_535
MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of one worker.

    Raises:
        StartError: a value cannot be; the message names its option.
    """

    # Which engine, and what it loads.
    engine: EngineSettings | EncoderSettings | ScriptedSettings

    # Address to listen on. Loopback by default: the mesh has no authentication between services.
    host: str = "127.0.0.1"
    # Whether it may listen elsewhere all the same.
    allow_anonymous: bool = False
    # 0 takes a free port.
    port: int = 21002
    metrics_port: int = 0
    # Written once the worker serves, for whoever started it.
    ready_file: Path | None = None

    # "host:port" of each controller. The worker holds a lease at every one of them; more
    # controllers cost a heartbeat each, and let the mesh outlive the loss of one.
    controllers: tuple[str, ...] = ("127.0.0.1:21001",)
    # The name in the mesh, stable over restarts. Empty is made of the host's name and the port.
    worker_id: str = ""
    # "host:port" at which gateways and controllers reach this worker. Empty is derived from `host`
    # and the port that is taken. Set it behind NAT or in a container with a mapped port.
    advertise_address: str = ""
    # Relative speed for the `lottery` routing policy: a worker of speed 2 gets twice the requests
    # of one of speed 1.
    speed: float = 1.0
    # For people and for routing, such as {"zone": "a"}.
    labels: Mapping[str, str] = field(default_factory=dict)

    # Seconds that running requests may go on once the worker is told to stop. Longer lets more of
    # them end here; shorter restarts sooner. What still runs then fails with UNAVAILABLE.
    grace_period_s: float = 30.0
    # A gateway that takes nothing for so many seconds has its requests aborted: they hold places
    # and KV memory that others could use. Longer forgives longer pauses of a gateway process.
    gateway_read_limit_s: float = 30.0
    # Seconds that the engine may take for one step. One that takes longer hangs: its requests go to
    # other workers, and the process ends, for its supervisor to start it again. Longer than the
    # longest step: where prompts are not computed in chunks, that is the longest prompt.
    hung_step_s: float = 120.0
    # Whether a request may bring its own Jinja chat template. Off by default: templates are code,
    # although they run in a sandbox.
    may_bring_template: bool = False

    @property
    def engine_name(self) -> str:
        """The engine that the engine's settings are for."""
        names = {EncoderSettings: "encoder", ScriptedSettings: "scripted"}
        return names.get(type(self.engine), "transformers")

    def __post_init__(self) -> None:
        check_service_exposure(self.host, allow_anonymous=self.allow_anonymous)
        for option, port in (("--port", self.port), ("--metrics-port", self.metrics_port)):
            if not 0 <= port <= MAX_PORT:
                raise StartError(
                    f"{option} is {port}; it must be from 0 (a free port) to {MAX_PORT}"
                )
        for controller in self.controllers:
            _require_address("--controller", controller)
        if self.advertise_address:
            _require_address("--advertise-address", self.advertise_address)
        if not self.worker_id.isprintable():
            raise StartError("--worker-id is not printable")
        if not (self.speed > 0 and math.isfinite(self.speed)):
            raise StartError(f"--speed is {self.speed:g}; it must be over 0")
        if not (self.grace_period_s >= 0 and math.isfinite(self.grace_period_s)):
            raise StartError(f"--grace-period is {self.grace_period_s:g}; it must be 0 or more")
        if not self.gateway_read_limit_s > 0:
            raise StartError(
                f"gateway_read_limit_s is {self.gateway_read_limit_s:g}; it must be over 0"
            )
        if not self.hung_step_s > 0:
            raise StartError(f"--hung-step is {self.hung_step_s:g}; it must be over 0")
        if len(self.labels) > MAX_LABELS:
            raise StartError(f"--labels holds {len(self.labels)} labels; at most {MAX_LABELS} may")
        for name, value in self.labels.items():
            if not name or max(len(name), len(value)) > MAX_LABEL_CHARACTERS:
                raise StartError(
                    f"--labels holds {name!r}; names have 1 to {MAX_LABEL_CHARACTERS} characters, "
                    "values no more"
                )


def read_labels(text: str) -> dict[str, str]:
    """Labels from "name=value,name=value".

    Raises:
        StartError: a part has no "=".
    """
    labels: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not part.strip():
            continue
        if not equals:
            raise StartError(f"--labels holds {part!r}; write name=value,name=value")
        labels[name] = value
    return labels


def _require_address(option: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= MAX_PORT:
        raise StartError(f"{option} is {address!r}; write host:port, such as 127.0.0.1:21001")
