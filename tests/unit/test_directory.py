"""The directory: what several controllers told, merged, and what names stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.discovery.directory import Directory, Removal, RemovalCause
from services.gateway.discovery.fleet import Load, Worker
from services.mesh.errors import MeshError, ModelNotFoundError, NoWorkerError
from tests.fakes.fleet import model, worker

FORGET_AFTER_S = 60.0


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock_s=clock, forget_after_s=FORGET_AFTER_S)


def ids(directory: Directory, name: str = "m") -> list[str]:
    """The workers that take requests for a name."""
    return [f"{each.worker_id}{each.incarnation}" for each in directory.resolve(name).workers]


def removal(
    worker_id: str, incarnation: str = "1", cause: RemovalCause = RemovalCause.EXPIRED
) -> Removal:
    return Removal(worker_id, incarnation, cause)


Step = Callable[[Directory, Clock], None]


def snapshot(controller: str, *workers: Worker, is_complete: bool = True) -> Step:
    return lambda directory, _: directory.apply_snapshot(
        controller, workers, is_complete=is_complete
    )


def delta(
    controller: str, *workers: Worker, removed: tuple[Removal, ...] = (), is_complete: bool = True
) -> Step:
    return lambda directory, _: directory.apply_delta(
        controller, workers, removed, is_complete=is_complete
    )


def lose(controller: str) -> Step:
    return lambda directory, _: directory.lose_controller(controller)


def wait(seconds: float) -> Step:
    def step(directory: Directory, clock: Clock) -> None:
        clock.now_s += seconds
        directory.forget_stale()

    return step


W, X = worker("w"), worker("x")
W2 = worker("w", "2", attached_at_s=1)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([snapshot("A", W, X)], ["w1", "x1"]),
        ([snapshot("A", W), delta("A", X)], ["w1", "x1"]),
        ([snapshot("A", W, X), delta("A", removed=(removal("w"),))], ["x1"]),
        # A restarted controller is learning: nothing vanishes until it is complete.
        ([snapshot("A", W, X), snapshot("A", X, is_complete=False)], ["w1", "x1"]),
        ([snapshot("A", W, X), snapshot("A", X)], ["x1"]),
        ([snapshot("A", W, X), snapshot("A", X, is_complete=False), delta("A")], ["x1"]),
        (
            [
                snapshot("A", W, X),
                snapshot("A", is_complete=False),
                delta("A", W, is_complete=False),
                delta("A"),
            ],
            ["w1"],
        ),
        # Removals count also while learning.
        (
            [
                snapshot("A", W, X),
                snapshot("A", X, is_complete=False),
                delta("A", removed=(removal("x"),), is_complete=False),
            ],
            ["w1"],
        ),
        # A removal of an incarnation that was replaced already changes nothing.
        ([snapshot("A", W), delta("A", W2), delta("A", removed=(removal("w"),))], ["w2"]),
        # With every controller gone, what was known goes on, however long.
        ([snapshot("A", W), lose("A"), wait(10_000)], ["w1"]),
        # Several controllers: the union, and a lease that ran out at one is no loss.
        ([snapshot("A", W), snapshot("B", X)], ["w1", "x1"]),
        (
            [snapshot("A", W, X), snapshot("B", W, X), delta("A", removed=(removal("w"),))],
            ["w1", "x1"],
        ),
        # A worker that said that it leaves is gone for all, also for one that lags.
        (
            [
                snapshot("A", W, X),
                snapshot("B", W, X),
                delta("A", removed=(removal("w", cause=RemovalCause.LEFT),)),
                delta("B", W),
            ],
            ["x1"],
        ),
        # A new incarnation replaces the old one, also where another controller lags.
        ([snapshot("A", W), snapshot("B", W), delta("A", W2)], ["w2"]),
        ([snapshot("A", W), snapshot("B", W), delta("A", W2), delta("B", W)], ["w2"]),
        ([snapshot("A", W2), snapshot("B", W)], ["w2"]),
        (
            [
                snapshot("A", W),
                delta("A", W2, removed=(removal("w", cause=RemovalCause.REPLACED),)),
                snapshot("B", W),
            ],
            ["w2"],
        ),
        # Clocks of controllers need not agree: one that speaks goes before one that is lost,
        ([snapshot("A", W2), lose("A"), snapshot("B", W)], ["w1"]),
        ([snapshot("A", W2), snapshot("B", W), lose("A")], ["w1"]),
        # and before what one told that was started anew since.
        ([snapshot("A", W2), snapshot("A", is_complete=False), snapshot("B", W)], ["w1"]),
        # Once all are lost, nothing changes any more.
        ([snapshot("A", W2), lose("A"), snapshot("B", W), lose("B")], ["w1"]),
        # What only a lost controller told lasts for a while, where another is there to ask.
        ([snapshot("A", W), snapshot("B", X), lose("A"), wait(59)], ["w1", "x1"]),
        ([snapshot("A", W), snapshot("B", X), lose("A"), wait(61)], ["x1"]),
        (
            [snapshot("A", W), snapshot("B", X, is_complete=False), lose("A"), wait(61)],
            ["w1", "x1"],
        ),
    ],
)
def test_merging(
    directory: Directory, clock: Clock, steps: list[Step], expected: list[str]
) -> None:
    for step in steps:
        step(directory, clock)
    assert ids(directory) == expected


def test_the_latest_word_on_a_worker_counts(directory: Directory) -> None:
    directory.apply_snapshot("A", [W], is_complete=True)
    directory.apply_snapshot("B", [replace(W, load=Load(running=3))], is_complete=True)
    directory.apply_delta("A", [replace(W, load=Load(running=5))], [], is_complete=True)
    assert directory.resolve("m").workers[0].load.running == 5


SQL = model("m", aliases=("latest",), adapters=("sql",))


@pytest.mark.parametrize(
    ("workers", "asked", "name", "expected"),
    [
        ([worker("w", "1", SQL)], "m", "m", ["w1"]),
        ([worker("w", "1", SQL)], "latest", "m", ["w1"]),
        ([worker("w", "1", SQL)], "sql", "sql", ["w1"]),
        # Only those that have the adapter.
        ([worker("w", "1", SQL), worker("x")], "sql", "sql", ["w1"]),
        ([worker("w", "1", SQL), worker("x")], "m", "m", ["w1", "x1"]),
        # A model's own name goes before an alias.
        (
            [worker("w", "1", model("a", aliases=("m",))), worker("x", "1", model("m"))],
            "m",
            "m",
            ["x1"],
        ),
        # An alias of several models stands for the first of them.
        (
            [
                worker("w", "1", model("b", aliases=("l",))),
                worker("x", "1", model("a", aliases=("l",))),
            ],
            "l",
            "a",
            ["x1"],
        ),
        # But for one that has a worker.
        (
            [
                worker("w", "1", model("b", aliases=("l",))),
                worker("x", "1", model("a", aliases=("l",)), draining=True),
            ],
            "l",
            "b",
            ["w1"],
        ),
        ([worker("w", draining=True), worker("x")], "m", "m", ["x1"]),
    ],
)
def test_what_a_name_stands_for(
    directory: Directory, workers: list[Worker], asked: str, name: str, expected: list[str]
) -> None:
    directory.apply_snapshot("A", workers, is_complete=True)
    assert directory.resolve(asked).name == name
    assert ids(directory, asked) == expected


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([], NoWorkerError),
        ([snapshot("A", is_complete=False)], NoWorkerError),
        ([snapshot("A")], ModelNotFoundError),
        ([snapshot("A", worker("w", "1", model("other")))], ModelNotFoundError),
        ([snapshot("A", worker("w", draining=True))], NoWorkerError),
        ([snapshot("A", W), snapshot("A")], NoWorkerError),
        ([snapshot("A", W), snapshot("A"), wait(59)], NoWorkerError),
        ([snapshot("A", W), snapshot("A"), wait(60)], ModelNotFoundError),
        (
            [
                snapshot("A", W),
                snapshot("A"),
                wait(59),
                delta("A", W),
                delta("A", removed=(removal("w"),)),
                wait(59),
            ],
            NoWorkerError,
        ),
    ],
    ids=[
        "no controller yet",
        "the controller is learning",
        "nothing is served",
        "another model is served",
        "all drain",
        "gone just now",
        "gone a while ago",
        "gone long ago",
        "gone twice",
    ],
)
def test_why_a_name_cannot_be_served(
    directory: Directory, clock: Clock, steps: list[Step], error: type[MeshError]
) -> None:
    for step in steps:
        step(directory, clock)
    with pytest.raises(error) as raised:
        directory.resolve("m")
    assert (raised.value.retry_after_s is not None) == (error is NoWorkerError)


def test_models_are_listed_by_name_with_those_that_take_requests(directory: Directory) -> None:
    other = model("b", aliases=("c",))
    directory.apply_snapshot(
        "A",
        [worker("w", "1", model(), other), worker("x", draining=True), worker("y", "1", other)],
        is_complete=True,
    )
    assert [(each.model.name, each.serving_workers) for each in directory.models()] == [
        ("b", 2),
        ("m", 1),
    ]
    found = directory.find("c")
    assert found is not None
    assert (found.model.name, found.serving_workers) == ("b", 2)
    assert directory.find("d") is None


def test_a_model_that_only_draining_workers_hold_is_listed(directory: Directory) -> None:
    directory.apply_snapshot("A", [worker("w", draining=True)], is_complete=True)
    assert [(each.model.name, each.serving_workers) for each in directory.models()] == [("m", 0)]


def test_a_model_is_listed_with_the_names_of_all_its_workers(directory: Directory) -> None:
    sql, poet = model(aliases=("l",), adapters=("sql",)), model(adapters=("poet", "sql"))
    directory.apply_snapshot("A", [worker("w", "1", sql), worker("x", "1", poet)], is_complete=True)
    (served,) = directory.models()
    assert served.serving_workers == 2
    assert served.model.aliases == ("l",)
    assert [adapter.name for adapter in served.model.adapters] == ["poet", "sql"]


def test_a_worker_may_change_what_it_serves(directory: Directory) -> None:
    directory.apply_snapshot("A", [W], is_complete=True)
    directory.apply_delta("A", [replace(W, models=(SQL,))], [], is_complete=True)
    assert ids(directory, "sql") == ["w1"]
    directory.apply_delta("A", [replace(W, models=(model("n"),))], [], is_complete=True)
    assert ids(directory, "n") == ["w1"]
    for gone in ("m", "sql", "latest"):
        with pytest.raises(NoWorkerError):
            directory.resolve(gone)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("AB"),
            st.sampled_from("wxy"),
            st.sampled_from("12"),
            st.sampled_from(["upsert", "remove", "snapshot", "learning", "lose"]),
        ),
        max_size=30,
    )
)
def test_names_always_lead_to_known_workers(steps: list[tuple[str, str, str, str]]) -> None:
    directory = Directory(clock_s=lambda: 0.0)
    for controller, worker_id, incarnation, what in steps:
        one = worker(worker_id, incarnation, SQL, attached_at_s=float(incarnation))
        if what == "upsert":
            directory.apply_delta(controller, [one], [], is_complete=True)
        elif what == "remove":
            gone = removal(worker_id, incarnation)
            directory.apply_delta(controller, [], [gone], is_complete=True)
        elif what == "lose":
            directory.lose_controller(controller)
        else:
            directory.apply_snapshot(controller, [one], is_complete=what == "snapshot")
        known = {each.key for each in directory.workers()}
        for name in ("m", "sql", "latest"):
            try:
                assert {each.key for each in directory.resolve(name).workers} == known
            except (NoWorkerError, ModelNotFoundError):
                assert not known
