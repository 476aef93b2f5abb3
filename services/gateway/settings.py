"""What can be set about a gateway. A value that cannot be stops the start."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from services.gateway.keys.key import Key
from services.gateway.links.breaker import BreakerTuning
from services.gateway.openai.responses.settings import ResponseSettings
from services.gateway.relay.course import GenerationLimits
from services.gateway.relay.persistence import PersistenceLimits
from services.gateway.routing import DEFAULT_POLICY, POLICIES
from services.gateway.routing.prefix_affinity import AffinityTuning
from services.mesh.errors import StartError
from services.mesh.exposure import check_client_exposure

MAX_PORT = 65_535
DEFAULT_CONTROLLER = "127.0.0.1:21001"

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})")


def default_gateway_id() -> str:
    """Host and process: unique among gateways, also where several share a port."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of one gateway.

    Raises:
        StartError: a value cannot be; the message names its option.
    """

    # Address to listen on. Loopback by default: Envoy is what faces clients.
    host: str = "127.0.0.1"
    # Where clients reach it, if that is another address: that of an Envoy which is not everywhere
    # where the gateway is, as in a network of containers. Empty is `host`.
    published_address: str = ""
    # Whether it may be reached from elsewhere although it asks for no key.
    allow_anonymous: bool = False
    # 0 takes a free port.
    port: int = 21003
    metrics_port: int = 0
    # Written once the gateway serves, for whoever started it.
    ready_file: Path | None = None
    # Lets several gateway processes share the port; the kernel spreads connections over them. Off,
    # a second process on the port is told so, which is what one mostly wants.
    reuse_port: bool = False

    # Keys that may enter, beside those of the file. With neither, anybody may who reaches the port.
    api_keys: tuple[Key, ...] = ()
    # A YAML file of hashed keys, followed while the gateway runs: see services/gateway/keys.
    api_keys_file: Path | None = None

    # "host:port" of every controller. All are watched: any one of them is enough.
    controllers: tuple[str, ...] = (DEFAULT_CONTROLLER,)
    # For the controllers' logs.
    gateway_id: str = field(default_factory=default_gateway_id)

    # Name of the routing policy, one of routing.POLICIES.
    routing_policy: str = DEFAULT_POLICY
    # When prefix_affinity takes a worker for loaded.
    affinity: AffinityTuning = field(default_factory=AffinityTuning)

    # Requests carried at once. More are refused with QUEUE_FULL. Each costs some 20 KiB, and up to
    # its credit window in text where its client reads slowly.
    max_requests: int = 2048
    # Of these, those that wait for a place at a worker, for each model. More bridges longer bursts,
    # and answers later what a client may no longer want.
    max_waiting: int = 512
    # Seconds that the queue may take to drain, at the rate measured: it is kept shorter where
    # workers are slow. Below the time after which clients give up.
    max_wait_s: float = 30.0
    # Requests of one caller carried at once; 0 for no limit but that of all. A caller is a key, or
    # without keys an address, which many people may share.
    max_requests_per_caller: int = 0
    # Conversations held at once by ChatService.Converse, also while nobody speaks. Each may grow to
    # 16 MiB.
    max_conversations: int = 1024
    # Seconds that a request may take, and takes at most where the client names no time. Longer
    # serves slow models; shorter frees the places of clients that hang.
    request_timeout_s: float = 600.0
    # Workers that a request is tried on before its first token, when they refuse it. More hides
    # more failures from clients, and answers them later.
    max_attempts: int = 3
    # Workers that a request may lose. More keeps long answers alive in a fleet that is falling
    # apart; what kills workers itself is stopped long before.
    max_losses: int = 8
    # Seconds that a request whose worker was lost waits for another one, where there is none just
    # then. Longer than a worker takes to restart saves streams where there is one worker only;
    # until then their clients see nothing.
    resume_wait_s: float = 5.0
    # Completion tokens that a worker may send ahead of a client. Smaller bounds memory for slow
    # clients; larger than what a client is behind at any time, it never slows one down.
    credit_window_tokens: int = 256

    # Workers in a row that die before a request's first token until it is stopped and quarantined.
    # 1 stops whatever runs when a worker is killed; 0 never stops one.
    poison_deaths: int = 2
    # Seconds that such a request is refused. Longer spares workers; shorter forgives sooner what
    # was innocent.
    quarantine_s: float = 600.0
    # Seconds that a worker with requests may neither send nor answer anything. Shorter moves
    # streams off a hung worker sooner, and takes more of those that are only slow for hung.
    hung_after_s: float = 2.5
    # Faults of a worker in a row after which it gets no requests, and how it is let back in.
    breaker: BreakerTuning = field(default_factory=BreakerTuning)
    # Seconds that a model stays known after its last worker went: its clients are told to try
    # again (503), after that that there is no such model (404). Longer than a worker's restart.
    forget_after_s: float = 60.0

    # What is kept of /v1/responses.
    responses: ResponseSettings = field(default_factory=ResponseSettings)

    # Seconds that running requests get to end after a stop was asked for. Longer lets long answers
    # end; the process lives that much longer.
    grace_period_s: float = 30.0
    # Seconds to wait for the first word of a controller before serving without it. Short: until
    # one has been heard, requests are answered 503.
    first_watch_limit_s: float = 5.0

    def __post_init__(self) -> None:
        check_client_exposure(
            "--published-address" if self.published_address else "--host",
            self.published_address or self.host,
            allow_anonymous=self.allow_anonymous,
            asks_for_keys=bool(self.api_keys) or self.api_keys_file is not None,
        )
        for option, port in (("--port", self.port), ("--metrics-port", self.metrics_port)):
            if not 0 <= port <= MAX_PORT:
                raise StartError(
                    f"{option} is {port}; it must be from 0 (a free port) to {MAX_PORT}"
                )
        if not self.controllers:
            raise StartError("--controller is missing; give the host:port of a controller")
        for address in self.controllers:
            check_address("--controller", address)
        if len(set(self.controllers)) < len(self.controllers):
            raise StartError("--controller names an address twice; give each once")
        if not self.gateway_id or not self.gateway_id.isprintable():
            raise StartError("--id is empty or not printable; give the gateway a name")
        if self.routing_policy not in POLICIES:
            raise StartError(
                f"--routing-policy is {self.routing_policy!r}; it must be one of "
                + ", ".join(sorted(POLICIES))
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        lower_bounds = {
            "--max-requests": (self.max_requests, 0),
            "--max-conversations": (self.max_conversations, 0),
            "--max-wait": (self.max_wait_s, 0),
            "--request-timeout": (self.request_timeout_s, 0),
            "--max-attempts": (self.max_attempts, 0),
            "--forget-after": (self.forget_after_s, 0),
            "--hung-after": (self.hung_after_s, 0),
            "--breaker-faults": (self.breaker.faults_to_trip, 0),
            "--affinity-free-requests": (self.affinity.free_requests, 0),
            "--affinity-load-factor": (self.affinity.load_factor, 1),
        }
        for option, (number, bound) in lower_bounds.items():
            if not number > bound:
                raise StartError(f"{option} is {number:g}; it must be over {bound}")
        for option, count in (
            ("--max-waiting", self.max_waiting),
            ("--max-requests-per-caller", self.max_requests_per_caller),
        ):
            if count < 0:
                raise StartError(f"{option} is {count}; it must be 0 or more")
        if not 0 < self.breaker.initial_backoff_s <= self.breaker.max_backoff_s:
            raise StartError(
                f"--breaker-backoff is {self.breaker.initial_backoff_s:g}; it must be over 0 and "
                f"up to {self.breaker.max_backoff_s:g} seconds"
            )
        if self.credit_window_tokens < 2:
            raise StartError(
                f"--credit-window is {self.credit_window_tokens}; it must be 2 tokens or more"
            )
        not_negative = {
            "--max-losses": self.max_losses,
            "--resume-wait": self.resume_wait_s,
            "--poison-deaths": self.poison_deaths,
            "--quarantine": self.quarantine_s,
            "--grace-period": self.grace_period_s,
        }
        for option, number in not_negative.items():
            if not number >= 0:
                raise StartError(f"{option} is {number:g}; it must be 0 or more")

    def limits(self) -> GenerationLimits:
        """What each request is allowed."""
        return GenerationLimits(
            self.credit_window_tokens,
            PersistenceLimits(self.max_attempts, self.max_losses, self.resume_wait_s),
            self.poison_deaths,
        )


def check_address(option: str, address: str) -> None:
    """Checks a "host:port".

    Raises:
        StartError: it is none; the message names the option.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) <= MAX_PORT:
        raise StartError(f"{option} is {address!r}; it must be host:port, such as 127.0.0.1:21001")
