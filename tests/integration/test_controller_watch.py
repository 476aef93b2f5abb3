"""Watch over real gRPC: a snapshot, then deltas in order, and what gateways report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from services.controller import streams
from services.controller.settings import ControllerSettings
from tests.fakes.controller_peers import (
    AttachPeer,
    WatchPeer,
    hello,
    reachable_address,
    refusing,
    silent_address,
    subscribe,
)
from tests.integration.controllers import Mesh, controller, eventually
from tokenmesh.controller.v1 import endpoint_pb2, registry_pb2
from tokenmesh.mesh.v1 import model_pb2

SETTINGS = ControllerSettings(port=0, controller_id="c1")
# A lease that no test lives to see expire: what ends it must be something else.
LONG_LEASE = ControllerSettings(port=0, lease_ttl_s=600, heartbeat_interval_s=200)
SHORT_LEASE = ControllerSettings(port=0, lease_ttl_s=0.6, heartbeat_interval_s=0.2)


async def test_a_snapshot_then_every_change_in_order() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address, "w1"))
        gateway = await mesh.watch()
        assert set(gateway.workers) == {"w1"}
        assert gateway.revision == 1
        assert gateway.completeness == endpoint_pb2.COMPLETENESS_LEARNING

        revisions = []
        await worker.beat(running=1)
        await gateway.follow()
        revisions.append(gateway.revision)
        assert gateway.workers["w1"].load.running == 1

        await mesh.attach().attach(hello(address, "w2"))
        await gateway.follow()
        revisions.append(gateway.revision)
        assert set(gateway.workers) == {"w1", "w2"}

        await mesh.attach().attach(hello(address, "w1", incarnation="b"))
        await gateway.follow()
        revisions.append(gateway.revision)
        assert gateway.workers["w1"].incarnation == "b"
        assert [(each.incarnation, each.cause) for each in gateway.removals] == [
            ("a", endpoint_pb2.REMOVAL_CAUSE_REPLACED)
        ]
        assert revisions == [2, 3, 4]


async def test_a_snapshot_names_the_controller_and_its_incarnation() -> None:
    incarnations = set()
    for _ in range(2):
        async with controller(SETTINGS) as mesh:
            gateway = await mesh.watch()
            assert gateway.snapshot.controller_id == "c1"
            incarnations.add(gateway.snapshot.controller_incarnation)
    assert len(incarnations) == 2
    assert "" not in incarnations


async def test_learning_ends_with_a_delta() -> None:
    async with controller(SHORT_LEASE) as mesh:
        gateway = await mesh.watch()
        await gateway.until(lambda: gateway.completeness == endpoint_pb2.COMPLETENESS_COMPLETE)
        late = await mesh.watch()
        assert late.completeness == endpoint_pb2.COMPLETENESS_COMPLETE


async def test_all_watchers_see_the_same() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        gateways = [await mesh.watch() for _ in range(5)]
        await eventually(lambda: mesh.metric("watchers") == 5)
        worker = mesh.attach()
        await worker.attach(hello(address))
        for running in range(1, 20):
            await worker.beat(running=running)
        for gateway in gateways:
            await gateway.until(partial(has_load, gateway, "w", 19))
        assert len({gateway.revision for gateway in gateways}) == 1


def has_load(gateway: WatchPeer, worker_id: str, running: int) -> bool:
    return worker_id in gateway.workers and gateway.workers[worker_id].load.running == running


async def test_a_gateway_that_goes_is_forgotten() -> None:
    async with controller(SETTINGS) as mesh:
        gateway = await mesh.watch()
        await eventually(lambda: mesh.metric("watchers") == 1)
        gateway.cancel()
        await eventually(lambda: mesh.metric("watchers") == 0)


async def test_a_gateway_that_has_nothing_more_to_say_still_hears() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        await gateway.half_close()
        await mesh.attach().attach(hello(address))
        await gateway.until(lambda: "w" in gateway.workers)


async def test_a_gateway_that_reads_too_slowly_must_watch_anew() -> None:
    settings = ControllerSettings(
        port=0, lease_ttl_s=600, heartbeat_interval_s=200, max_pending_changes=3
    )
    async with controller(settings) as mesh, reachable_address() as address:
        slow = WatchPeer(mesh.channel)
        await slow.write(subscribe("slow"))
        await eventually(lambda: mesh.metric("watchers") == 1)
        # Far more than a connection holds of what nobody reads.
        for number in range(80):
            await mesh.attach().attach(big_hello(address, f"w{number}"))
        error = await slow.failure()
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "WATCH_LAGGED")
        anew = await mesh.watch()
        assert len(anew.workers) == 80


async def test_a_gateway_that_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_LIMIT_S", 0.2)
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        deaf = WatchPeer(mesh.channel)
        await deaf.write(subscribe("deaf"))
        await eventually(lambda: mesh.metric("watchers") == 1)
        # Far more than a connection holds of what nobody reads.
        for number in range(80):
            await mesh.attach().attach(big_hello(address, f"w{number}"))
        await eventually(lambda: mesh.metric("watchers") == 0)
        error = await deaf.failure()
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "WATCH_LAGGED")


def big_hello(address: str, worker_id: str) -> registry_pb2.Hello:
    introduction = hello(address, worker_id)
    big = [model_pb2.Model(name=f"m{number}", revision="r" * 30_000) for number in range(5)]
    introduction.models.extend(big)
    return introduction


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        ([endpoint_pb2.WatchRequest()], "FAILED_PRECONDITION", "SUBSCRIBE_EXPECTED"),
        (
            [endpoint_pb2.WatchRequest(failure_report=endpoint_pb2.FailureReport())],
            "FAILED_PRECONDITION",
            "SUBSCRIBE_EXPECTED",
        ),
        ([], "FAILED_PRECONDITION", "SUBSCRIBE_EXPECTED"),
        ([subscribe(), subscribe()], "FAILED_PRECONDITION", "SUBSCRIBE_REPEATED"),
        ([subscribe(), endpoint_pb2.WatchRequest()], "INVALID_ARGUMENT", "FRAME_EMPTY"),
        ([subscribe("")], "INVALID_ARGUMENT", "SUBSCRIBE_MALFORMED"),
        ([subscribe("g" * 129)], "INVALID_ARGUMENT", "SUBSCRIBE_MALFORMED"),
        (
            [endpoint_pb2.WatchRequest(subscribe=endpoint_pb2.Subscribe(protocol_version=2))],
            "FAILED_PRECONDITION",
            "PROTOCOL_VERSION_UNSUPPORTED",
        ),
        (
            [subscribe(), endpoint_pb2.WatchRequest(failure_report=endpoint_pb2.FailureReport())],
            "INVALID_ARGUMENT",
            "FAILURE_REPORT_MALFORMED",
        ),
    ],
)
async def test_wrong_frames(
    frames: list[endpoint_pb2.WatchRequest], code: str, reason: str
) -> None:
    async with controller(SETTINGS) as mesh:
        gateway = WatchPeer(mesh.channel)
        for frame in frames:
            await gateway.write(frame)
        await gateway.half_close()
        error = await gateway.failure()
        assert (error.code, error.reason) == (code, reason)


async def test_a_watch_that_never_subscribes_ends() -> None:
    async with controller(ControllerSettings(port=0, first_frame_limit_s=0.1)) as mesh:
        error = await WatchPeer(mesh.channel).failure()
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "SUBSCRIBE_EXPECTED")


async def test_too_many_watchers_are_refused() -> None:
    async with controller(ControllerSettings(port=0, max_watchers=1)) as mesh:
        await mesh.watch()
        error = await WatchPeer(mesh.channel).failure()
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "WATCHERS_EXHAUSTED")


@asynccontextmanager
async def mortal(mesh: Mesh, worker_id: str = "w") -> AsyncIterator[AttachPeer]:
    """A worker that has attached, and whose address refuses from then on."""
    async with reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address, worker_id))
    with refusing(address):
        yield worker


async def test_a_worker_whose_process_died_is_gone_long_before_its_ttl() -> None:
    async with controller(LONG_LEASE) as mesh, mortal(mesh) as worker:
        gateway = await mesh.watch()
        worker.cancel()
        await gateway.until(lambda: bool(gateway.removals))
        assert gateway.removals[0].cause == endpoint_pb2.REMOVAL_CAUSE_EXPIRED
        assert mesh.metric("lease_events_total", event="expired") == 1


async def test_a_reported_worker_that_neither_answers_nor_beats_is_gone_early() -> None:
    settings = ControllerSettings(port=0, lease_ttl_s=600, heartbeat_interval_s=0.4)
    async with controller(settings) as mesh, mortal(mesh) as worker:
        gateway = await mesh.watch()
        await gateway.report("w", "a", reason="WORKER_LOST")
        error = await worker.failure()
        assert error.reason == "LEASE_EXPIRED"
        await gateway.until(lambda: bool(gateway.removals))
        assert mesh.metric("failure_reports_total", reason="WORKER_LOST") == 1


async def test_a_reported_worker_that_answers_stays() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        worker = mesh.attach()
        await worker.attach(hello(address))
        for _ in range(20):
            await gateway.report("w", "a", reason="DEADLINE_EXCEEDED")
        await eventually(
            lambda: mesh.metric("failure_reports_total", reason="DEADLINE_EXCEEDED") == 20
        )
        # By the time that a death has been found out, the report has been looked into.
        async with mortal(mesh, "dead") as dead:
            dead.cancel()
            await gateway.until(lambda: bool(gateway.removals))
        assert set(await mesh.workers()) == {"w"}
        await worker.beat()


async def test_reports_of_the_unknown_or_the_outdated_are_only_counted() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        await mesh.attach().attach(hello(address))
        await gateway.report("nobody", "a")
        await gateway.report("w", "older")
        await eventually(lambda: mesh.metric("failure_reports_total", reason="WORKER_LOST") == 2)
        assert set(await mesh.workers()) == {"w"}


async def test_report_reasons_do_not_grow_the_metrics_without_bound() -> None:
    async with controller(LONG_LEASE) as mesh:
        gateway = await mesh.watch()
        for number in range(60):
            await gateway.report("w", "a", reason=f"MADE_UP_{number}")
        await eventually(lambda: mesh.metric("failure_reports_total", reason="other") == 10)


async def test_a_worker_that_is_stopped_is_found_out_by_its_silence() -> None:
    settings = ControllerSettings(port=0, lease_ttl_s=600, heartbeat_interval_s=0.4)
    async with controller(settings) as mesh:
        gateway = await mesh.watch()
        async with reachable_address() as address:
            await mesh.attach().attach(hello(address))
        port = int(address.rpartition(":")[2])
        async with silent_address(port):
            await gateway.report("w", "a")
            await gateway.until(lambda: bool(gateway.removals))
        assert gateway.removals[0].cause == endpoint_pb2.REMOVAL_CAUSE_EXPIRED
