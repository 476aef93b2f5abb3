"""When a silent worker is asked, and when it is given up."""

from __future__ import annotations

from services.gateway.links.liveness import (
    LOOKS_UNTIL_ASKED,
    LOOKS_UNTIL_HUNG,
    Liveness,
    Verdict,
)


def looks(liveness: Liveness, count: int, *, is_owed: bool = True) -> list[Verdict]:
    return [liveness.look(is_owed=is_owed) for _ in range(count)]


def test_a_silent_worker_is_asked_once_and_then_given_up() -> None:
    verdicts = looks(Liveness(), LOOKS_UNTIL_HUNG)
    assert verdicts.index(Verdict.ASK) == LOOKS_UNTIL_ASKED - 1
    assert verdicts.count(Verdict.ASK) == 1
    assert verdicts.index(Verdict.GIVE_UP) == LOOKS_UNTIL_HUNG - 1


def test_one_that_owes_nothing_may_be_silent() -> None:
    assert set(looks(Liveness(), 100, is_owed=False)) == {Verdict.WAIT}


def test_any_word_starts_the_silence_anew() -> None:
    liveness = Liveness()
    for _ in range(50):
        assert Verdict.GIVE_UP not in looks(liveness, LOOKS_UNTIL_HUNG - 1)
        liveness.hear()
        assert liveness.look(is_owed=True) is Verdict.WAIT


def test_what_becomes_busy_is_not_blamed_for_having_been_idle() -> None:
    liveness = Liveness()
    looks(liveness, 50, is_owed=False)
    assert Verdict.GIVE_UP not in looks(liveness, LOOKS_UNTIL_HUNG - 1)
