"""How long and how hot: the short run of `make test`, the long one of `make chaos`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.chaos.faults import FaultKind
from tests.chaos.layout import DEMO_MODEL, SCRIPTED_MODEL, Layout
from tests.chaos.questions import Question, questions
from tests.chaos.schedule import Fire


@dataclass(frozen=True)
class Profile:
    """A run. Times are in seconds."""

    name: str
    layout: Layout
    fire: Fire
    duration_s: float
    clients: int
    demo_clients: int
    scripted_tokens: int
    demo_tokens: int = 0
    stream_limit_s: float = 120.0
    """After so long an answer counts as one that never ends."""

    def scripted_questions(self) -> list[Question]:
        """What is asked of the scripted engine."""
        return questions(SCRIPTED_MODEL, self.scripted_tokens)

    def demo_questions(self) -> list[Question]:
        """What is asked of the demo model."""
        return questions(DEMO_MODEL, self.demo_tokens) if self.demo_clients else []

    def lasting(self, duration_s: float) -> Profile:
        """The same for so long."""
        fire = replace(
            self.fire,
            last_s=duration_s - (self.duration_s - self.fire.last_s),
            blackouts_at_s=tuple(at_s for at_s in self.fire.blackouts_at_s if at_s < duration_s),
        )
        return replace(self, fire=fire, duration_s=duration_s)

    def without_cuts(self) -> Profile:
        """The same where no network can be cut."""
        return replace(self, fire=replace(self.fire, kinds=frozenset(FaultKind) - {FaultKind.CUT}))


SHORT = Profile(
    name="short",
    layout=Layout(token_interval_ms=60, prefill_ms=5),
    fire=Fire(first_s=2.0, last_s=12.0, every_s=0.8, recovery_s=3.5),
    duration_s=14.0,
    clients=100,
    demo_clients=0,
    scripted_tokens=60,
)

LONG = Profile(
    name="long",
    layout=Layout(scripted_workers=4, demo_workers=2, token_interval_ms=100, prefill_ms=20),
    fire=Fire(
        first_s=5.0,
        last_s=870.0,
        every_s=3.5,
        recovery_s=10.0,
        blackouts_at_s=(150.0, 400.0, 650.0),
    ),
    duration_s=900.0,
    clients=100,
    demo_clients=8,
    scripted_tokens=200,
    demo_tokens=60,
)

PROFILES = {profile.name: profile for profile in (SHORT, LONG)}
