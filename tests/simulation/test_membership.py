"""Whatever happens to controllers, workers and networks: after it, gateways know who is there.

Each seed is one schedule; a failing one is run again by its number.
"""

from __future__ import annotations

import os

import pytest

from services.gateway.routing import POLICIES
from tests.simulation.mesh import SimulatedMesh

SCHEDULES = int(os.environ.get("TOKENMESH_SIMULATED_SCHEDULES", "60"))
FIRE_S = 45.0
# One TTL until controllers are complete again, one more for who was silent at the end, and what
# connections and retries take.
SETTLE_S = 20.0
FORGET_S = 60.0
QUIET_S = 10.0

POLICY_NAMES = sorted(POLICIES)


def mesh(seed: int, **counts: int) -> SimulatedMesh:
    return SimulatedMesh(seed, policy=POLICY_NAMES[seed % len(POLICY_NAMES)], **counts)


def check_that_all_is_well(simulated: SimulatedMesh) -> None:
    """All gateways know all workers, and no other; no request goes astray any more."""
    for gateway in simulated.gateways:
        assert gateway.known() == simulated.alive(), f"{gateway.host.name} is mistaken"
        assert not any(worker.draining for worker in gateway.directory.workers())
        gateway.answered.clear()
        gateway.misdirected.clear()
        gateway.unserved = 0
    simulated.run(QUIET_S)
    for gateway in simulated.gateways:
        assert not gateway.misdirected
        assert not gateway.unserved
        assert gateway.answered


@pytest.mark.parametrize("block", range(10))
def test_after_the_fire_everybody_is_known(block: int) -> None:
    for seed in range(block, SCHEDULES, 10):
        simulated = mesh(seed)
        simulated.run(10.0)
        simulated.hurt(FIRE_S)
        simulated.heal()
        simulated.run(SETTLE_S)
        check_that_all_is_well(simulated)


@pytest.mark.parametrize("block", range(10))
def test_a_controller_that_never_comes_back_is_not_missed(block: int) -> None:
    for seed in range(block, SCHEDULES, 10):
        simulated = mesh(seed, controllers=3)
        simulated.run(10.0)
        simulated.hurt(FIRE_S / 2)
        simulated.abandon_controllers(1 + seed % 2)
        simulated.hurt(FIRE_S / 2)
        simulated.heal()
        simulated.run(SETTLE_S)
        check_that_all_is_well(simulated)


@pytest.mark.parametrize("block", range(10))
def test_without_any_controller_gateways_serve_from_what_they_know(block: int) -> None:
    for seed in range(block, SCHEDULES, 10):
        simulated = mesh(seed)
        simulated.hurt(FIRE_S)
        simulated.heal()
        simulated.run(SETTLE_S)
        check_that_all_is_well(simulated)
        simulated.abandon_controllers(2)
        simulated.run(2 * FORGET_S)
        check_that_all_is_well(simulated)


@pytest.mark.parametrize("block", range(10))
def test_one_dead_worker_costs_no_request_while_no_controller_is_there(block: int) -> None:
    for seed in range(block, SCHEDULES, 10):
        simulated = mesh(seed)
        simulated.run(20.0)
        simulated.abandon_controllers(2)
        simulated.run(10.0)
        simulated.workers[seed % 3].end()
        for gateway in simulated.gateways:
            gateway.unserved = 0
        simulated.run(60.0)
        assert [gateway.unserved for gateway in simulated.gateways] == [0, 0]


def test_a_seed_gives_one_history() -> None:
    def history() -> list[object]:
        simulated = mesh(3)
        simulated.hurt(FIRE_S)
        return [(g.known(), g.answered, g.misdirected, g.unserved) for g in simulated.gateways]

    assert history() == history()
