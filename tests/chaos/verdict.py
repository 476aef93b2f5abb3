"""What became of every request: equal to the undisturbed answer, or what else. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.faults import FaultKind, Service, Suffered
from tests.chaos.streams import Exchange
from tests.chaos.transcript import (
    BrokenAnswerError,
    ErrorAnswerError,
    Transcript,
    read_stream,
    read_whole,
)

TOO_MANY_REQUESTS = 429


class Outcome(StrEnum):
    """How a request ended."""

    EQUAL = "equal"
    """Whole, and what the undisturbed mesh answered."""
    DIFFERING = "differing"
    """Whole, and something else."""
    FAILED = "failed"
    """Anything that is not whole, or an error."""
    REJECTED = "rejected"
    """Turned away before it began, because the mesh was full."""
    LOST_WITH_GATEWAY = "lost with its gateway"
    """Not whole: the gateway that held the client's stream was killed, which nobody can hide."""


@dataclass(frozen=True)
class Judged:
    """A request and what became of it; `why` is empty for an equal one."""

    exchange: Exchange
    outcome: Outcome
    why: str = ""


@dataclass
class Verdict:
    """What became of all requests."""

    judged: list[Judged]
    complaints: list[str] = field(default_factory=list)
    """What else must not happen: processes that end by themselves, places never given back."""

    def count(self, outcome: Outcome) -> int:
        """How many requests ended so."""
        return sum(each.outcome is outcome for each in self.judged)

    def of(self, *outcomes: Outcome) -> list[Judged]:
        """The requests that ended so."""
        return [each for each in self.judged if each.outcome in outcomes]

    @property
    def is_clean(self) -> bool:
        """Whether nothing failed that could have gone well, and nothing differs."""
        return not self.of(Outcome.DIFFERING, Outcome.FAILED) and not self.complaints

    def reasons(self, *outcomes: Outcome) -> Counter[str]:
        """Why requests ended so, and how many for each reason."""
        return Counter(each.why for each in self.of(*outcomes))


def transcript_of(exchange: Exchange) -> Transcript:
    """What the client was told.

    Raises:
        BrokenAnswerError: the answer is not whole, or none of the API.
        ErrorAnswerError: it is an error.
    """
    if exchange.status and exchange.body.startswith(b"{"):
        return read_whole(exchange.body)
    if not exchange.is_whole:
        raise BrokenAnswerError(exchange.failure)
    return read_stream(exchange.body)


def judge(
    exchange: Exchange,
    undisturbed: Mapping[str, Transcript],
    killed_gateways: Sequence[Suffered],
    upstream_hosts: Mapping[str, str],
) -> Judged:
    """What became of a request.

    Args:
        undisturbed: the right answers, by the question's name.
        killed_gateways: gateways that were killed.
        upstream_hosts: the gateway that each request was with, by request id.
    """
    try:
        transcript = transcript_of(exchange)
    except (BrokenAnswerError, ErrorAnswerError) as error:
        if exchange.status == TOO_MANY_REQUESTS:
            return Judged(exchange, Outcome.REJECTED, _reason(error))
        host = upstream_hosts.get(exchange.request_id)
        for fault in killed_gateways:
            if fault.address == host and exchange.began_s <= fault.began_s <= exchange.ended_s:
                return Judged(exchange, Outcome.LOST_WITH_GATEWAY, _reason(error))
        return Judged(exchange, Outcome.FAILED, _reason(error, exchange.status))
    differences = undisturbed[exchange.question.name].differences(transcript)
    if differences:
        return Judged(exchange, Outcome.DIFFERING, "; ".join(differences))
    return Judged(exchange, Outcome.EQUAL)


def killed_gateways(suffered: Sequence[Suffered]) -> list[Suffered]:
    """The faults that end the streams of clients themselves."""
    return [
        each
        for each in suffered
        if each.service is Service.GATEWAY and each.fault.kind is FaultKind.KILL
    ]


def upstream_hosts(access_log: str) -> dict[str, str]:
    """Which gateway each request was with, by request id, from Envoy's access log."""
    lines = (json.loads(line) for line in access_log.splitlines() if line.endswith("}"))
    return {str(line["request_id"]): str(line["upstream_host"]) for line in lines}


def _reason(error: Exception, status: int = 200) -> str:
    """Why, without what differs from one request to the next."""
    prefix = "" if status in (0, 200) else f"HTTP {status}: "
    if isinstance(error, ErrorAnswerError):
        told = json.loads(str(error))
        return f"{prefix}{told.get('type')}/{told.get('code')}: {told.get('message')}"
    return f"{prefix}{error}"
