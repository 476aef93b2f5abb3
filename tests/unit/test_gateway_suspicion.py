"""What a worker died of: who is suspected, who is convicted, and who is let go."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.gateway.links.suspects import Loss, suspects
from services.gateway.relay.quarantine import MAX_FINGERPRINTS, Quarantine
from services.gateway.relay.suspicion import Suspicion
from services.mesh.errors import PoisonRequestError
from tokenmesh.worker.v1 import worker_pb2


@dataclass
class Ran:
    """A request that ran on a worker when it was lost."""

    name: str
    has_output: bool = False
    choices: int = 1


TALKING = [Ran(f"talking-{number}", has_output=True) for number in range(3)]
NEW = [Ran(f"new-{number}") for number in range(4)]


@pytest.mark.parametrize(
    ("ran", "max_running", "suspected"),
    [
        ([], 4, 0),
        (TALKING, 4, 0),
        ([*TALKING, *NEW], 0, 4),
        ([*TALKING, *NEW], 32, 4),
        ([*TALKING, *NEW], 5, 2),
        ([*TALKING, *NEW], 3, 1),
        (NEW, 2, 2),
        ([Ran("three", choices=3), *NEW], 4, 2),
    ],
)
def test_what_may_have_been_computed_first_is_suspected(
    ran: list[Ran], max_running: int, suspected: int
) -> None:
    silent = [each for each in ran if not each.has_output]
    assert suspects(ran, max_running) == silent[:suspected]


def test_two_losses_in_a_row_convict() -> None:
    suspicion = Suspicion(2)
    assert not suspicion.is_suspect
    suspicion.accuse(Loss())
    assert (suspicion.is_suspect, suspicion.is_convicted) == (True, False)
    suspicion.accuse(Loss())
    assert suspicion.is_convicted


def test_a_token_clears() -> None:
    suspicion = Suspicion(2)
    suspicion.accuse(Loss())
    suspicion.clear()
    suspicion.accuse(Loss())
    assert not suspicion.is_convicted


def test_a_worker_that_comes_back_has_not_died() -> None:
    suspicion = Suspicion(2)
    survived = Loss()
    suspicion.accuse(survived)
    survived.was_survived = True
    assert not suspicion.is_suspect
    suspicion.accuse(Loss())
    assert not suspicion.is_convicted


def test_nobody_is_convicted_where_that_is_off() -> None:
    suspicion = Suspicion(0)
    for _ in range(5):
        suspicion.accuse(Loss())
    assert not suspicion.is_convicted


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def start(text: str = "Hi", **fields: object) -> worker_pb2.Start:
    return worker_pb2.Start(model="m", text=text, **fields)  # type: ignore[arg-type]


def is_out(quarantine: Quarantine, asked: worker_pb2.Start, *, drawn: bool = True) -> bool:
    try:
        quarantine.check(asked, seed_was_drawn=drawn)
    except PoisonRequestError:
        return True
    return False


def test_a_request_is_known_by_what_it_asks_for() -> None:
    refusals: list[bool] = []
    quarantine = Quarantine(10.0, Clock(), lambda: refusals.append(True))
    poison = start(request_id="one", credit_tokens=8)
    poison.sampling.seed = 1
    quarantine.add(poison, seed_was_drawn=True)
    again = start(request_id="two", priority=3)
    again.sampling.seed = 2
    assert is_out(quarantine, again)
    assert refusals == [True]
    assert not is_out(quarantine, again, drawn=False)
    assert not is_out(quarantine, start("Hello"))
    hotter = start()
    hotter.sampling.temperature = 0.5
    assert not is_out(quarantine, hotter)


def test_a_quarantine_ends() -> None:
    clock = Clock()
    quarantine = Quarantine(10.0, clock, lambda: None)
    quarantine.add(start(), seed_was_drawn=True)
    clock.now_s = 9.9
    assert is_out(quarantine, start())
    clock.now_s = 10.0
    assert not is_out(quarantine, start())
    assert len(quarantine) == 0


def test_a_quarantine_is_bounded() -> None:
    quarantine = Quarantine(10.0, Clock(), lambda: None)
    for number in range(MAX_FINGERPRINTS + 5):
        quarantine.add(start(str(number)), seed_was_drawn=True)
    assert len(quarantine) == MAX_FINGERPRINTS
    assert not is_out(quarantine, start("4"))
    assert is_out(quarantine, start("5"))


def test_silence_counts_half_of_a_death() -> None:
    suspicion = Suspicion(2)
    for _ in range(3):
        suspicion.accuse(Loss(is_silent=True))
        assert suspicion.is_suspect
        assert not suspicion.is_convicted
    suspicion.accuse(Loss(is_silent=True))
    assert suspicion.is_convicted
    mixed = Suspicion(2)
    mixed.accuse(Loss(is_silent=True))
    mixed.accuse(Loss())
    assert not mixed.is_convicted
    mixed.accuse(Loss(is_silent=True))
    assert mixed.is_convicted
