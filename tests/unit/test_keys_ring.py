"""Who is let in, and what for."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.discovery.directory import ServedModel
from services.gateway.keys.hashing import digest_of
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.metrics import KeyMetrics
from services.gateway.keys.model_access import visible
from services.gateway.keys.presented import presented_key
from services.gateway.keys.ring import KeyRing
from services.mesh.errors import RateLimitedError, UnauthenticatedError
from tests.fakes.fleet import model


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Scene:
    """A ring with its clock and metrics."""

    def __init__(self, *keys: Key) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        metrics = KeyMetrics(self.registry)
        self.ring = KeyRing(keys, clock_s=self.clock, epoch_s=self.clock, metrics_of=metrics.of)

    def refusals(self, name: str, reason: str) -> float:
        labels = {"key": name, "reason": reason}
        return self.registry.get_sample_value("tokenmesh_gateway_key_refusals_total", labels) or 0.0


def key(name: str, text: str | None = None, **fields: Any) -> Key:
    return Key(name, digest_of(text or name), **fields)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ([], None),
        ([("authorization", "Bearer k")], "k"),
        ([("authorization", "bearer   k ")], "k"),
        ([("authorization", "Basic abc")], None),
        ([("authorization", "k")], None),
        ([("authorization", "Bearer ")], None),
        ([("x-api-key", "k")], "k"),
        ([("api-key", " k ")], "k"),
        ([("api-key", "")], None),
        ([("api-key", "z"), ("x-api-key", "y"), ("authorization", "Bearer x")], "x"),
        ([("api-key", "z"), ("authorization", "Basic abc")], "z"),
        ([("authorization", b"Bearer k")], None),
        ([("user-agent", "Bearer k")], None),
    ],
)
def test_where_a_key_is_looked_for(metadata: list[Any], found: str | None) -> None:
    assert presented_key(metadata) == found


def test_only_a_known_key_enters() -> None:
    scene = Scene(key("alice"))
    assert scene.ring.authenticate("alice").account.key.name == "alice"
    for wrong in ("alic", "alicf", "alice ", "ALICE", "", "x" * 100_000, "é"):
        with pytest.raises(UnauthenticatedError) as raised:
            scene.ring.authenticate(wrong)
        assert raised.value.reason == "INVALID_API_KEY"
    with pytest.raises(UnauthenticatedError, match="no API key was given"):
        scene.ring.authenticate(None)
    assert (scene.refusals("", "unknown"), scene.refusals("", "missing")) == (7, 1)


def test_a_wrong_key_is_shown_by_its_end_alone() -> None:
    with pytest.raises(UnauthenticatedError) as raised:
        Scene(key("alice")).ring.authenticate("tm-0123456789012345678901234567")
    assert raised.value.message == "incorrect API key provided: ********4567"


def test_a_revoked_or_expired_key_is_told_so() -> None:
    scene = Scene(key("a", is_disabled=True), key("b", expires_at_s=1001.0))
    with pytest.raises(UnauthenticatedError, match="has been revoked"):
        scene.ring.authenticate("a")
    access = scene.ring.authenticate("b")
    scene.clock.now_s = 1001.0
    with pytest.raises(UnauthenticatedError, match="has expired"):
        scene.ring.authenticate("b")
    with pytest.raises(UnauthenticatedError, match="has expired"):
        scene.ring.recheck(access)
    assert (scene.refusals("a", "revoked"), scene.refusals("b", "expired")) == (1, 2)


def test_other_keys_take_the_place_of_those_of_the_file_alone() -> None:
    scene = Scene(key("fixed"))
    scene.ring.replace([key("alice")])
    scene.ring.replace([key("bob")])
    with pytest.raises(UnauthenticatedError):
        scene.ring.authenticate("alice")
    assert scene.ring.authenticate("fixed").account.key.name == "fixed"
    assert {each.name for each in scene.ring} == {"fixed", "bob"}


def test_a_key_that_is_changed_keeps_what_was_used_of_it() -> None:
    scene = Scene()
    scene.ring.replace([key("a", "old", limits=KeyLimits(requests_per_minute=2))])
    before = scene.ring.authenticate("old")
    before.account.begin_request()
    before.account.begin_request()
    scene.ring.replace([key("a", "new", limits=KeyLimits(requests_per_minute=2), weight=3.0)])
    after = scene.ring.authenticate("new")
    assert after.account is before.account
    assert after.account.key.weight == 3.0
    with pytest.raises(RateLimitedError):
        after.account.begin_request()
    # What the old key still holds open is the old key's.
    with pytest.raises(UnauthenticatedError, match="has been revoked"):
        scene.ring.recheck(before)
    scene.ring.recheck(after)


def test_requests_are_refused_beyond_their_rate_and_told_when_to_come() -> None:
    scene = Scene(key("a", limits=KeyLimits(requests_per_minute=3)))
    account = scene.ring.authenticate("a").account
    for _ in range(3):
        account.begin_request()
    with pytest.raises(RateLimitedError, match="3 requests per minute; try again in 20s") as raised:
        account.begin_request()
    assert raised.value.retry_after_s == pytest.approx(20)
    scene.clock.now_s += 20
    account.begin_request()
    assert scene.refusals("a", "requests") == 1


def test_who_owes_tokens_begins_nothing() -> None:
    scene = Scene(key("a", limits=KeyLimits(tokens_per_minute=600)))
    account = scene.ring.authenticate("a").account
    account.begin_request()
    account.charge_prompt(900)
    with pytest.raises(RateLimitedError, match="600 tokens per minute") as raised:
        account.begin_request()
    assert raised.value.retry_after_s == pytest.approx(30.1)
    scene.clock.now_s += 30.1
    account.begin_request()


def test_so_many_calls_run_at_once() -> None:
    scene = Scene(key("a", limits=KeyLimits(max_concurrent=1)))
    account = scene.ring.authenticate("a").account
    place = account.enter()
    first, second = place.hold(), place.hold()
    for let_go in (first, first, second):
        with pytest.raises(RateLimitedError, match="1 requests running at once"):
            account.enter()
        let_go()
    account.enter()


def test_as_many_looks_run_beside_them() -> None:
    scene = Scene(key("a", limits=KeyLimits(max_concurrent=1)))
    account = scene.ring.authenticate("a").account
    account.enter().hold()
    let_go = account.enter_to_look().hold()
    with pytest.raises(RateLimitedError, match="1 calls beside requests running at once"):
        account.enter_to_look()
    let_go()
    account.enter_to_look()
    assert scene.refusals("a", "concurrent") == 1


def test_what_is_left_is_told_of_limits_that_there_are() -> None:
    scene = Scene(
        key("a", limits=KeyLimits(60, 6000)), key("b"), key("c", limits=KeyLimits(None, 60))
    )
    account = scene.ring.authenticate("a").account
    account.begin_request()
    account.charge_prompt(100)
    assert dict(account.headers()) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5900",
        "x-ratelimit-reset-tokens": "1s",
    }
    assert scene.ring.authenticate("b").account.headers() == ()
    owing = scene.ring.authenticate("c").account
    owing.charge_prompt(90)
    assert dict(owing.headers())["x-ratelimit-remaining-tokens"] == "0"
    assert dict(owing.headers())["x-ratelimit-reset-tokens"] == "1m30s"


@pytest.mark.parametrize(
    ("patterns", "name", "fits"),
    [
        (("*",), "anything/at:all", True),
        (("llama-*",), "llama-3", True),
        (("llama-*",), "Llama-3", False),
        (("llama-?",), "llama-10", False),
        (("a", "b"), "b", True),
        (("org/*",), "org/sub/name", True),
        (("demo",), "demo2", False),
    ],
)
def test_patterns_of_models(patterns: tuple[str, ...], name: str, fits: bool) -> None:
    assert key("a", models=patterns).matches(name) is fits


def test_models_are_seen_under_the_names_that_may_be_asked_for() -> None:
    served = [
        ServedModel(model("base", adapters=("tuned", "secret"), aliases=("default",)), 2),
        ServedModel(model("other"), 1),
    ]

    def seen(*patterns: str) -> list[tuple[str, list[str], tuple[str, ...]]]:
        shown = visible(served, key("a", models=patterns).matches)
        return [
            (each.model.name, [a.name for a in each.model.adapters], each.model.aliases)
            for each in shown
        ]

    assert seen("*") == [("base", ["tuned", "secret"], ("default",)), ("other", [], ())]
    assert seen("base", "tuned") == [("base", ["tuned"], ("default",))]
    assert seen("default", "tuned") == [("tuned", [], ()), ("default", [], ())]
    assert seen("nothing") == []
