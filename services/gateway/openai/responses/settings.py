"""What can be set about responses that are kept. A value that cannot be stops the start."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.gateway.openai.responses.store.base import StoreLimits
from services.gateway.openai.responses.store.sqlite import IN_MEMORY
from services.mesh.errors import StartError

MIN_BYTES = 1 << 20


@dataclass(frozen=True)
class ResponseSettings:
    """Settings of /v1/responses.

    Raises:
        StartError: a value cannot be; the message names its option.
    """

    # The file that responses are kept in, shared by the gateways of a machine. In memory, they are
    # known to one process only and gone with it: what a gateway that was told no place can do.
    db: str = IN_MEMORY
    # More keeps conversations longer that nobody has gone on with; each costs disk or memory.
    limits: StoreLimits = field(default_factory=StoreLimits)
    # Background responses that a gateway makes at once, half of them for one caller. More are
    # refused with 429. They take their part of --max-requests, and nobody waits for them: fewer
    # leave more to those who do.
    max_background: int = 64

    def __post_init__(self) -> None:
        if not self.db:
            raise StartError(f"--responses-db is empty; give a file, or {IN_MEMORY}")
        if self.limits.max_responses < 1:
            raise StartError(
                f"--responses-max is {self.limits.max_responses}; it must be 1 or more"
            )
        if self.limits.max_bytes < MIN_BYTES:
            raise StartError(
                f"--responses-max-bytes is {self.limits.max_bytes}; it must be {MIN_BYTES} or more"
            )
        if not self.limits.ttl_s > 0:
            raise StartError(f"--responses-ttl is {self.limits.ttl_s:g}; it must be over 0 seconds")
        if self.max_background < 0:
            raise StartError(
                f"--responses-max-background is {self.max_background}; it must be 0 or more"
            )
