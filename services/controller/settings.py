"""What can be set about a controller. A value that cannot be stops the start."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from services.controller.leases import LeaseTerms
from services.mesh.errors import StartError
from services.mesh.exposure import check_service_exposure

MAX_PORT = 65_535


@dataclass(frozen=True)
class ControllerSettings:
    """Settings of one controller.

    Raises:
        StartError: a value cannot be; the message names its option.
    """

    # Address to listen on. Loopback by default: the mesh has no authentication between services.
    host: str = "127.0.0.1"
    # Whether it may listen elsewhere all the same.
    allow_anonymous: bool = False
    # 0 takes a free port.
    port: int = 21001
    metrics_port: int = 0
    # Written once the controller serves, for whoever started it.
    ready_file: Path | None = None

    # For people, and for gateways that watch several controllers. Unique among replicas.
    controller_id: str = field(default_factory=socket.gethostname)

    # Seconds that a silent worker keeps its lease. Shorter notices a dead worker sooner; longer
    # forgives pauses. Workers that die cleanly, or that a gateway reports, are gone sooner anyway.
    lease_ttl_s: float = 6.0
    # Seconds between two heartbeats. Shorter keeps the load that gateways route by fresher, at one
    # message up, one down and one to each gateway. A third of the TTL lets two get lost.
    heartbeat_interval_s: float = 2.0

    # Seconds that a worker's address may take to answer before it gets a lease. Longer helps on
    # slow networks; it also is how long a worker waits to learn that its address is wrong.
    dial_limit_s: float = 2.0
    # Dials that run at once, each a connection; more wait. Bounds what a flood of Hellos costs.
    max_dials: int = 64
    # Seconds that a new stream may take to introduce itself.
    first_frame_limit_s: float = 10.0

    # Seconds that a worker may take to confirm a drain or a resume: it has but to note it.
    command_limit_s: float = 10.0
    # Seconds that a worker may take to load or unload an adapter, download included.
    adapter_limit_s: float = 300.0

    # Workers and gateways taken on, so that memory is bounded. Each costs some 10 KiB.
    max_workers: int = 10_000
    max_watchers: int = 1_000
    # Changed or removed workers that one gateway may have yet to read. Repeated changes of a worker
    # count once, so a gateway loses its watch only when it is far behind.
    max_pending_changes: int = 4_096

    def __post_init__(self) -> None:
        check_service_exposure(self.host, allow_anonymous=self.allow_anonymous)
        for option, port in (("--port", self.port), ("--metrics-port", self.metrics_port)):
            if not 0 <= port <= MAX_PORT:
                raise StartError(
                    f"{option} is {port}; it must be from 0 (a free port) to {MAX_PORT}"
                )
        if not self.controller_id or not self.controller_id.isprintable():
            raise StartError("--id is empty or not printable; give the controller a name")
        positive = {
            "--dial-limit": self.dial_limit_s,
            "first_frame_limit_s": self.first_frame_limit_s,
            "--command-limit": self.command_limit_s,
            "--adapter-limit": self.adapter_limit_s,
            "max_dials": self.max_dials,
            "--max-workers": self.max_workers,
            "--max-watchers": self.max_watchers,
            "max_pending_changes": self.max_pending_changes,
        }
        for option, number in positive.items():
            if not number > 0:
                raise StartError(f"{option} is {number:g}; it must be over 0")
        try:
            self.lease_terms()
        except ValueError as error:
            raise StartError(f"{error}; see --lease-ttl and --heartbeat-interval") from error

    def lease_terms(self) -> LeaseTerms:
        """What leases ask of workers."""
        return LeaseTerms(self.lease_ttl_s, self.heartbeat_interval_s)
