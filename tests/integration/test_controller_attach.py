"""Attach over real gRPC: leases, takeovers, and every typed error that the contract names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import CapturingLogger

from services.controller import keeper
from services.controller.settings import ControllerSettings
from tests.fakes.controller_peers import (
    hello,
    reachable_address,
    refusing,
    silent_address,
)
from tests.integration.controllers import controller, eventually
from tokenmesh.controller.v1 import endpoint_pb2, registry_pb2
from tokenmesh.mesh.v1 import model_pb2

SETTINGS = ControllerSettings(port=0, controller_id="c1")
# A lease that no test lives to see expire: what ends it must be something else.
LONG_LEASE = ControllerSettings(port=0, lease_ttl_s=600, heartbeat_interval_s=200)
SHORT_LEASE = ControllerSettings(port=0, lease_ttl_s=0.6, heartbeat_interval_s=0.2)


async def test_a_hello_gets_a_lease_and_heartbeats_renew_it() -> None:
    async with controller(SETTINGS) as mesh, reachable_address() as address:
        worker = mesh.attach()
        granted = await worker.attach(hello(address))
        assert granted.ttl.ToMilliseconds() == 6_000
        assert granted.heartbeat_interval.ToMilliseconds() == 2_000
        assert granted.attachment == registry_pb2.ATTACHMENT_NEW
        assert granted.controller_id == "c1"
        await worker.beat(running=1)
        await worker.beat(running=2)
        known = (await mesh.workers())["w"]
        assert known.load.running == 2
        assert known.labels == {"zone": "a"}
        assert mesh.metric("lease_events_total", event="granted") == 1
        assert mesh.metric("lease_events_total", event="renewed") == 2
        await eventually(lambda: mesh.metric("workers", state="serving") == 1)


async def test_leaving_removes_the_worker_and_ends_the_stream_well() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        worker = mesh.attach()
        await worker.attach(hello(address))
        await worker.send(leaving=registry_pb2.Leaving(reason="scaled down"))
        await worker.end()
        await gateway.until(lambda: bool(gateway.removals))
        assert gateway.removals[0].cause == endpoint_pb2.REMOVAL_CAUSE_LEFT
        assert await mesh.workers() == {}
        assert mesh.metric("lease_events_total", event="left") == 1


@pytest.mark.parametrize("break_stream", ["cancel", "half_close"])
async def test_a_broken_stream_keeps_the_lease_for_a_reconnect(break_stream: str) -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        first = mesh.attach()
        await first.attach(hello(address))
        await first.beat(running=3)
        if break_stream == "cancel":
            first.cancel()
        else:
            await first.half_close()
            await first.end()
        again = mesh.attach()
        granted = await again.attach(hello(address))
        assert granted.attachment == registry_pb2.ATTACHMENT_RECONNECT
        assert again.lease_id != first.lease_id
        assert (await mesh.workers())["w"].load.running == 3
        await again.beat()


@pytest.mark.parametrize(
    ("incarnation", "attachment", "event"),
    [
        ("a", registry_pb2.ATTACHMENT_RECONNECT, "reconnected"),
        ("b", registry_pb2.ATTACHMENT_RESTART, "restarted"),
    ],
)
async def test_a_newer_attach_takes_the_lease_over(
    incarnation: str, attachment: registry_pb2.Attachment.ValueType, event: str
) -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        older, newer = mesh.attach(), mesh.attach()
        await older.attach(hello(address, incarnation="a"))
        granted = await newer.attach(hello(address, incarnation=incarnation))
        assert granted.attachment == attachment
        error = await older.failure()
        assert (error.code, error.reason) == ("ABORTED", "LEASE_SUPERSEDED")
        await newer.beat()
        assert (await mesh.workers())["w"].incarnation == incarnation
        assert mesh.metric("lease_events_total", event="superseded") == 1
        assert mesh.metric("lease_events_total", event=event) == 1


async def test_a_live_process_that_loses_its_id_to_another_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        controller(LONG_LEASE) as mesh,
        reachable_address() as one_address,
        reachable_address() as other_address,
    ):
        one, other = mesh.attach(), mesh.attach()
        await one.attach(hello(one_address, incarnation="a"))
        log = CapturingLogger()
        monkeypatch.setattr(keeper, "log", log)
        await other.attach(hello(other_address, incarnation="b"))
        warnings = [call.kwargs for call in log.calls if call.method_name == "warning"]
        assert [(each["old_address"], each["new_address"]) for each in warnings] == [
            (one_address, other_address)
        ]


async def test_a_silent_worker_expires() -> None:
    async with controller(SHORT_LEASE) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        worker = mesh.attach()
        await worker.attach(hello(address))
        error = await worker.failure()
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "LEASE_EXPIRED")
        await gateway.until(lambda: bool(gateway.removals))
        assert gateway.removals[0].cause == endpoint_pb2.REMOVAL_CAUSE_EXPIRED
        again = mesh.attach()
        granted = await again.attach(hello(address))
        assert granted.attachment == registry_pb2.ATTACHMENT_NEW
        assert mesh.metric("lease_events_total", event="expired") >= 1


async def test_a_worker_that_broke_off_for_longer_than_the_ttl_is_new() -> None:
    async with controller(SHORT_LEASE) as mesh, reachable_address() as address:
        first = mesh.attach()
        await first.attach(hello(address))
        first.cancel()
        await eventually(lambda: mesh.metric("lease_events_total", event="expired") == 1)
        assert await mesh.workers() == {}


async def test_models_may_change() -> None:
    async with controller(SETTINGS) as mesh, reachable_address() as address:
        gateway = await mesh.watch()
        worker = mesh.attach()
        await worker.attach(hello(address))
        changed = registry_pb2.ModelsChanged(models=[model_pb2.Model(name="other")])
        await worker.send(models_changed=changed)
        await gateway.until(
            lambda: "w" in gateway.workers and gateway.workers["w"].models[0].name == "other"
        )
        assert await mesh.workers("m") == {}
        assert set(await mesh.workers("other")) == {"w"}


async def test_a_model_with_fields_of_a_newer_release_is_passed_on_whole() -> None:
    newer_field = b"\xf2\x3e\x05newer"
    model = model_pb2.Model.FromString(b"\x0a\x01m" + newer_field)
    async with controller(SETTINGS) as mesh, reachable_address() as address:
        introduction = hello(address)
        del introduction.models[:]
        introduction.models.append(model)
        await mesh.attach().attach(introduction)
        known = (await mesh.workers())["w"]
        assert newer_field in known.models[0].SerializeToString()


Edit = Callable[[registry_pb2.Hello], None]


def setting(**fields: object) -> Edit:
    """Sets fields of a Hello."""

    def edit(hello: registry_pb2.Hello) -> None:
        for name, given in fields.items():
            setattr(hello, name, given)

    return edit


def add_models(*names: str) -> Edit:
    """Adds models to those of a Hello."""
    return lambda hello: hello.models.extend(model_pb2.Model(name=name) for name in names)


MALFORMED: dict[str, tuple[Edit, str]] = {
    "no worker id": (setting(worker_id=""), "hello.worker_id"),
    "space in worker id": (setting(worker_id="a b"), "hello.worker_id"),
    "newline in worker id": (setting(worker_id="a\nb"), "hello.worker_id"),
    "long worker id": (setting(worker_id="w" * 129), "hello.worker_id"),
    "no incarnation": (setting(incarnation=""), "hello.incarnation"),
    "long incarnation": (setting(incarnation="w" * 129), "hello.incarnation"),
    "no address": (setting(address=""), "hello.address"),
    "address without port": (setting(address="localhost"), "hello.address"),
    "address without host": (setting(address=":21002"), "hello.address"),
    "port 0": (setting(address="localhost:0"), "hello.address"),
    "port too high": (setting(address="localhost:65536"), "hello.address"),
    "address is a URL": (setting(address="http://localhost:1"), "hello.address"),
    "address to listen on": (setting(address="0.0.0.0:21002"), "hello.address"),
    "IPv6 address to listen on": (setting(address="[::]:21002"), "hello.address"),
    "long address": (setting(address="h" * 300 + ":1"), "hello.address"),
    "no model": (lambda hello: hello.ClearField("models"), "hello.models"),
    "too many models": (add_models(*(f"m{n}" for n in range(256))), "hello.models"),
    "unnamed model": (add_models(""), "hello.models[1].name"),
    "long model name": (add_models("m" * 257), "hello.models[1].name"),
    "same model twice": (add_models("m"), "hello.models[1]"),
    "a name that is another's alias": (add_models("m-latest"), "hello.models[1]"),
    "unnamed alias": (lambda hello: hello.models[0].aliases.append(""), "hello.models[0].aliases"),
    "unnamed adapter": (
        lambda hello: hello.models[0].adapters.append(model_pb2.Adapter()),
        "hello.models[0].adapters",
    ),
    "big model": (
        lambda hello: setattr(hello.models[0], "revision", "r" * 40_000),
        "hello.models[0]",
    ),
    "no capacity": (lambda hello: hello.ClearField("capacity"), "hello.capacity.max_running"),
    "speed 0": (lambda hello: setattr(hello.capacity, "speed", 0), "hello.capacity.speed"),
    "speed below 0": (lambda hello: setattr(hello.capacity, "speed", -1), "hello.capacity.speed"),
    "speed infinite": (
        lambda hello: setattr(hello.capacity, "speed", float("inf")),
        "hello.capacity.speed",
    ),
    "speed not a number": (
        lambda hello: setattr(hello.capacity, "speed", float("nan")),
        "hello.capacity.speed",
    ),
    "no state": (setting(state=registry_pb2.WORKER_STATE_UNSPECIFIED), "hello.state"),
    "unknown state": (setting(state=77), "hello.state"),
    "many labels": (
        lambda hello: hello.labels.update({str(n): "" for n in range(33)}),
        "hello.labels",
    ),
    "unnamed label": (lambda hello: hello.labels.update({"": "x"}), "hello.labels"),
    "long label": (lambda hello: hello.labels.update({"k" * 65: "x"}), "hello.labels key"),
    "long label value": (lambda hello: hello.labels.update({"k": "x" * 257}), "hello.labels['k']"),
    "long release": (setting(release="1" * 65), "hello.release"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_hello_names_the_field(case: str) -> None:
    edit, field = MALFORMED[case]
    introduction = hello("127.0.0.1:1")
    edit(introduction)
    async with controller(SETTINGS) as mesh:
        worker = mesh.attach()
        await worker.write(registry_pb2.AttachRequest(hello=introduction))
        error = await worker.failure()
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "HELLO_MALFORMED")
        assert error.field == field
        assert field in error.message
        assert len(error.message) < 1_000
        assert await mesh.workers() == {}
        assert mesh.metric("lease_events_total", event="refused") == 1


async def test_a_hello_with_a_lease_id_is_malformed() -> None:
    async with controller(SETTINGS) as mesh:
        worker = mesh.attach()
        frame = registry_pb2.AttachRequest(lease_id="x", hello=hello("127.0.0.1:1"))
        await worker.write(frame)
        error = await worker.failure()
        assert (error.reason, error.field) == ("HELLO_MALFORMED", "lease_id")


@pytest.mark.parametrize("version", [0, 2, 4_294_967_295])
async def test_another_protocol_version_is_refused(version: int) -> None:
    async with controller(SETTINGS) as mesh:
        worker = mesh.attach()
        unreadable = registry_pb2.Hello(protocol_version=version)
        await worker.write(registry_pb2.AttachRequest(hello=unreadable))
        error = await worker.failure()
        assert error.code == "FAILED_PRECONDITION"
        assert error.reason == "PROTOCOL_VERSION_UNSUPPORTED"


@pytest.mark.parametrize(
    "frame",
    [
        registry_pb2.AttachRequest(heartbeat=registry_pb2.Heartbeat(number=1)),
        registry_pb2.AttachRequest(leaving=registry_pb2.Leaving()),
        registry_pb2.AttachRequest(),
        None,
    ],
    ids=["heartbeat", "leaving", "empty", "half-close"],
)
async def test_the_first_frame_must_be_a_hello(frame: registry_pb2.AttachRequest | None) -> None:
    async with controller(SETTINGS) as mesh:
        worker = mesh.attach()
        if frame is None:
            await worker.half_close()
        else:
            await worker.write(frame)
        error = await worker.failure()
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "HELLO_EXPECTED")


async def test_a_stream_that_never_introduces_itself_ends() -> None:
    async with controller(ControllerSettings(port=0, first_frame_limit_s=0.1)) as mesh:
        error = await mesh.attach().failure()
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "HELLO_EXPECTED")


LATER_FRAMES: dict[str, tuple[dict[str, object], tuple[str, str, str | None]]] = {
    "second hello": (
        {"hello": hello("127.0.0.1:1")},
        ("FAILED_PRECONDITION", "HELLO_REPEATED", None),
    ),
    "empty": ({}, ("INVALID_ARGUMENT", "FRAME_EMPTY", "frame")),
    "no lease id": (
        {
            "lease_id": "",
            "heartbeat": registry_pb2.Heartbeat(number=1, state=registry_pb2.WORKER_STATE_SERVING),
        },
        ("FAILED_PRECONDITION", "LEASE_MISMATCH", "lease_id"),
    ),
    "long lease id": (
        {"lease_id": "x" * 100_000, "leaving": registry_pb2.Leaving()},
        ("FAILED_PRECONDITION", "LEASE_MISMATCH", "lease_id"),
    ),
    "heartbeat without state": (
        {"heartbeat": registry_pb2.Heartbeat(number=1)},
        ("INVALID_ARGUMENT", "HEARTBEAT_MALFORMED", "heartbeat.state"),
    ),
    "heartbeat with impossible speed": (
        {
            "heartbeat": registry_pb2.Heartbeat(
                number=1,
                state=registry_pb2.WORKER_STATE_SERVING,
                load=registry_pb2.Load(tokens_per_second=float("nan")),
            )
        },
        ("INVALID_ARGUMENT", "HEARTBEAT_MALFORMED", "heartbeat.load.tokens_per_second"),
    ),
    "no models left": (
        {"models_changed": registry_pb2.ModelsChanged()},
        ("INVALID_ARGUMENT", "MODELS_CHANGED_MALFORMED", "models_changed.models"),
    ),
}


@pytest.mark.parametrize("case", LATER_FRAMES)
async def test_a_wrong_frame_ends_the_stream_but_not_the_lease(case: str) -> None:
    fields, (code, reason, field) = LATER_FRAMES[case]
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address))
        frame = registry_pb2.AttachRequest(**{"lease_id": worker.lease_id, **fields})  # type: ignore[arg-type]
        await worker.write(frame)
        error = await worker.failure()
        assert (error.code, error.reason, error.field) == (code, reason, field)
        assert len(error.message) < 1_000
        assert set(await mesh.workers()) == {"w"}


async def test_the_lease_of_another_is_out_of_reach() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        one, two = mesh.attach(), mesh.attach()
        await one.attach(hello(address, "one"))
        await two.attach(hello(address, "two"))
        two.lease_id = one.lease_id
        await two.send(leaving=registry_pb2.Leaving())
        error = await two.failure()
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "LEASE_MISMATCH")
        assert set(await mesh.workers()) == {"one", "two"}
        await one.beat()


async def test_an_outcome_that_nobody_waits_for_is_ignored() -> None:
    async with controller(SETTINGS) as mesh, reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address))
        await worker.settle("made up")
        await worker.beat()


async def test_many_cached_prefixes_are_cut_to_the_most_recent() -> None:
    async with controller(SETTINGS) as mesh, reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address))
        heartbeat = registry_pb2.Heartbeat(
            number=1, state=registry_pb2.WORKER_STATE_SERVING, cached_prefixes=range(5_000)
        )
        await worker.send(heartbeat=heartbeat)
        await worker.read()
        assert list((await mesh.workers())["w"].cached_prefixes) == list(range(1_024))


async def test_an_address_where_nobody_listens_is_refused() -> None:
    async with reachable_address() as address:
        pass
    async with controller(SETTINGS) as mesh:
        worker = mesh.attach()
        with refusing(address):
            await worker.write(registry_pb2.AttachRequest(hello=hello(address)))
            error = await worker.failure()
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ADDRESS_UNREACHABLE")
        assert error.field == "hello.address"
        assert address in error.message
        assert await mesh.workers() == {}


async def test_an_address_that_does_not_answer_is_refused() -> None:
    settings = ControllerSettings(port=0, dial_limit_s=0.1)
    async with controller(settings) as mesh, silent_address() as address:
        worker = mesh.attach()
        await worker.write(registry_pb2.AttachRequest(hello=hello(address)))
        error = await worker.failure()
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ADDRESS_UNREACHABLE")


async def test_a_slow_dial_holds_up_nobody_else() -> None:
    settings = ControllerSettings(port=0, dial_limit_s=600)
    async with (
        controller(settings) as mesh,
        silent_address() as silent,
        reachable_address() as address,
    ):
        waiting = mesh.attach()
        await waiting.write(registry_pb2.AttachRequest(hello=hello(silent, "slow")))
        await mesh.attach().attach(hello(address, "quick"))
        assert set(await mesh.workers()) == {"quick"}
        waiting.cancel()


async def test_a_full_controller_says_so() -> None:
    settings = ControllerSettings(port=0, max_workers=1)
    async with controller(settings) as mesh, reachable_address() as address:
        await mesh.attach().attach(hello(address, "one"))
        two = mesh.attach()
        await two.write(registry_pb2.AttachRequest(hello=hello(address, "two")))
        error = await two.failure()
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "WORKERS_EXHAUSTED")
