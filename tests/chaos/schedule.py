"""When which fault hits which process: a pure function of the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.chaos.faults import Fault, FaultKind, Part, Service

Weights = Mapping[FaultKind, float]

KINDS: Mapping[Service, Weights] = {
    Service.WORKER: {
        FaultKind.KILL: 12,
        FaultKind.STOP: 3,
        FaultKind.CUT: 3,
        FaultKind.RESTART: 2,
    },
    Service.CONTROLLER: {
        FaultKind.KILL: 4,
        FaultKind.STOP: 2,
        FaultKind.CUT: 2,
        FaultKind.RESTART: 2,
    },
    Service.GATEWAY: {
        FaultKind.RESTART: 5,
        FaultKind.STOP: 2,
        FaultKind.CUT: 2,
        FaultKind.KILL: 1,
    },
}

SERVICES: Mapping[Service, float] = {
    Service.WORKER: 16,
    Service.CONTROLLER: 3,
    Service.GATEWAY: 1,
}

OUTAGES_S: Mapping[tuple[Service, FaultKind], tuple[float, float]] = {
    (Service.WORKER, FaultKind.KILL): (0.0, 3.0),
    (Service.WORKER, FaultKind.STOP): (1.0, 8.0),
    (Service.WORKER, FaultKind.CUT): (1.0, 8.0),
    (Service.WORKER, FaultKind.RESTART): (0.0, 2.0),
    (Service.CONTROLLER, FaultKind.KILL): (0.0, 8.0),
    (Service.CONTROLLER, FaultKind.STOP): (1.0, 8.0),
    (Service.CONTROLLER, FaultKind.CUT): (1.0, 8.0),
    (Service.CONTROLLER, FaultKind.RESTART): (0.0, 2.0),
    (Service.GATEWAY, FaultKind.KILL): (0.0, 2.0),
    # Envoy gives a silent gateway ten seconds before it gives its streams up.
    (Service.GATEWAY, FaultKind.STOP): (0.5, 3.0),
    (Service.GATEWAY, FaultKind.CUT): (0.5, 3.0),
    (Service.GATEWAY, FaultKind.RESTART): (0.0, 1.0),
}


@dataclass(frozen=True)
class Fire:
    """How much happens.

    Args:
        first_s: when the first fault may come.
        last_s: when the last one may.
        every_s: mean time between two faults.
        recovery_s: how long a part counts as away after its outage: until it serves again.
        blackouts_at_s: when all controllers are killed at once, for `blackout_s`.
    """

    first_s: float
    last_s: float
    every_s: float
    recovery_s: float = 8.0
    blackouts_at_s: tuple[float, ...] = ()
    blackout_s: float = 10.0
    kinds: frozenset[FaultKind] = frozenset(FaultKind)


@dataclass
class _Absences:
    """Who is away, and until when."""

    until_s: dict[str, float] = field(default_factory=dict)

    def has(self, part: Part, now_s: float) -> bool:
        return self.until_s.get(part.name, 0.0) > now_s

    def note(self, part: Part, until_s: float) -> None:
        self.until_s[part.name] = max(until_s, self.until_s.get(part.name, 0.0))


def schedule(seed: int, parts: Sequence[Part], fire: Fire) -> list[Fault]:
    """The faults of a run, in the order of their times.

    Of each group at least one part is there at any time: what clients then still lose, the mesh
    has lost. The blackouts, in which no controller is left, are the exception: a gateway is not
    made to forget meanwhile what only they could tell it again.
    """
    random = Random(seed)
    absences = _Absences()
    faults: list[Fault] = []
    blackouts = list(fire.blackouts_at_s)
    at_s = fire.first_s
    while at_s <= fire.last_s:
        while blackouts and blackouts[0] <= at_s:
            faults += _blackout(blackouts.pop(0), parts, fire, absences)
        fault = _draw(random, at_s, parts, fire, absences)
        if fault is not None:
            faults.append(fault)
        at_s += fire.every_s * random.uniform(0.5, 1.5)
    return sorted(faults, key=lambda fault: fault.at_s)


def _draw(
    random: Random, at_s: float, parts: Sequence[Part], fire: Fire, absences: _Absences
) -> Fault | None:
    """A fault that may happen now. None when nobody can be spared."""
    candidates = [
        part
        for part in parts
        if not absences.has(part, at_s)
        and _is_spared(part, parts, at_s, absences)
        and not _is_blind(part, at_s, fire)
    ]
    if not candidates:
        return None
    sizes = {part.service: sum(p.service is part.service for p in candidates) for part in parts}
    part = random.choices(
        candidates, [SERVICES[part.service] / sizes[part.service] for part in candidates]
    )[0]
    weights = {kind: n for kind, n in KINDS[part.service].items() if kind in fire.kinds}
    kind = random.choices(list(weights), list(weights.values()))[0]
    outage_s = random.uniform(*OUTAGES_S[part.service, kind])
    absences.note(part, at_s + outage_s + fire.recovery_s)
    return Fault(at_s, kind, part.name, outage_s)


def _is_spared(part: Part, parts: Sequence[Part], at_s: float, absences: _Absences) -> bool:
    """Whether another part of its group is there."""
    return any(
        other.group == part.group and other is not part and not absences.has(other, at_s)
        for other in parts
    )


def _is_blind(part: Part, at_s: float, fire: Fire) -> bool:
    """Whether it could not learn again what it knows, or is about to be hit by a blackout."""
    if part.service is Service.WORKER:
        return False
    margin_s = 2 * fire.recovery_s
    return any(
        blackout_s - margin_s < at_s < blackout_s + fire.blackout_s + margin_s
        for blackout_s in fire.blackouts_at_s
    )


def _blackout(at_s: float, parts: Sequence[Part], fire: Fire, absences: _Absences) -> list[Fault]:
    controllers = [part for part in parts if part.service is Service.CONTROLLER]
    for part in controllers:
        absences.note(part, at_s + fire.blackout_s + fire.recovery_s)
    return [Fault(at_s, FaultKind.KILL, part.name, fire.blackout_s) for part in controllers]
