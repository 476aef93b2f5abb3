"""The schedule is a function of the seed, and never leaves clients without anyone to serve them."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.faults import Fault, FaultKind, Part, Service
from tests.chaos.profiles import LONG, SHORT, Profile
from tests.chaos.schedule import schedule

SEEDS = range(50)


def planned(profile: Profile, seed: int) -> list[Fault]:
    return schedule(seed, profile.layout.parts(), profile.fire)


@pytest.mark.parametrize("profile", [SHORT, LONG], ids=lambda profile: profile.name)
def test_a_seed_gives_one_schedule(profile: Profile) -> None:
    assert planned(profile, 7) == planned(profile, 7)
    assert planned(profile, 7) != planned(profile, 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_long_run_kills_a_hundred_times(seed: int) -> None:
    kinds = Counter(fault.kind for fault in planned(LONG, seed))
    assert kinds[FaultKind.KILL] >= 100
    assert all(kinds[kind] for kind in FaultKind)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_come_in_order_and_in_time(seed: int) -> None:
    for profile in (SHORT, LONG):
        times_s = [fault.at_s for fault in planned(profile, seed)]
        assert times_s == sorted(times_s)
        assert times_s[0] >= profile.fire.first_s
        assert times_s[-1] <= profile.fire.last_s


@pytest.mark.parametrize("seed", SEEDS)
def test_somebody_is_left_to_stand_in(seed: int) -> None:
    parts = {part.name: part for part in LONG.layout.parts()}
    faults = planned(LONG, seed)
    for fault in faults:
        part = parts[fault.part]
        if part.service is Service.CONTROLLER:
            continue
        away = {
            other.part
            for other in faults
            if parts[other.part].group == part.group
            and other.at_s <= fault.at_s < other.at_s + other.outage_s + LONG.fire.recovery_s
        }
        group = {name for name, each in parts.items() if each.group == part.group}
        assert group - away


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blackout_takes_every_controller_and_no_gateway(seed: int) -> None:
    parts = {part.name: part for part in LONG.layout.parts()}
    faults = planned(LONG, seed)
    for at_s in LONG.fire.blackouts_at_s:
        taken = {fault.part for fault in faults if fault.at_s == at_s}
        assert taken >= {name for name, p in parts.items() if p.service is Service.CONTROLLER}
        for fault in faults:
            if parts[fault.part].service is Service.GATEWAY:
                assert not at_s <= fault.at_s <= at_s + LONG.fire.blackout_s


def test_what_cannot_be_cut_is_not_cut() -> None:
    uncut = LONG.without_cuts()
    assert all(fault.kind is not FaultKind.CUT for seed in SEEDS for fault in planned(uncut, seed))


def test_a_part_that_stands_alone_is_spared() -> None:
    alone = [Part("gateway-1", Service.GATEWAY, "gateways")]
    assert schedule(1, alone, SHORT.fire) == []
