"""What a request takes of its caller's tokens, and when its worker gets credit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.gateway.keys.account import Account
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.metrics import KeyMetrics
from services.gateway.relay.spending import MAX_PAUSE_S, Spending
from services.mesh.errors import RateLimitedError


class Scene:
    """An account with a clock that the test turns."""

    def __init__(self, tokens_per_minute: int | None) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        key = Key("a", b"", limits=KeyLimits(tokens_per_minute=tokens_per_minute))
        metrics = KeyMetrics(self.registry).of("a")
        self.account = Account(key, clock_s=lambda: self.now_s, metrics=metrics)

    def request(self, *, choices: int = 1, max_tokens: int | None = None) -> Spending:
        return Spending(self.account, 256, choices=choices, max_tokens=max_tokens)

    def left(self) -> int:
        return int(dict(self.account.headers())["x-ratelimit-remaining-tokens"])

    def tokens(self, kind: str) -> float:
        labels = {"key": "a", "kind": kind}
        return self.registry.get_sample_value("tokenmesh_gateway_key_tokens_total", labels) or 0


def test_without_a_rate_nothing_is_held_back() -> None:
    free = Spending(None, 256, choices=2, max_tokens=5)
    assert free.window_tokens == 256
    free.begin(0)
    assert free.extend(10**9) == 0
    unlimited = Scene(None).request()
    assert unlimited.window_tokens == 256
    assert unlimited.extend(10**9) == 0


@pytest.mark.parametrize(
    ("per_minute", "max_tokens", "window_tokens"),
    [(6000, None, 100), (10**9, None, 256), (1, None, 2), (6000, 7, 7), (6000, 1, 2)],
)
def test_a_worker_is_ahead_by_a_second_of_the_rate(
    per_minute: int, max_tokens: int | None, window_tokens: int
) -> None:
    assert Scene(per_minute).request(max_tokens=max_tokens).window_tokens == window_tokens


def test_what_is_paid_and_not_used_comes_back() -> None:
    scene = Scene(6000)
    request = scene.request(choices=2)
    request.begin(0)
    assert scene.left() == 5800
    request.pay_prompt(50)
    request.pay_prompt(50)
    assert scene.left() == 5750
    assert request.extend(50) == 0
    assert scene.left() == 5650
    request.settle(30)
    assert scene.left() == 6000 - 50 - 30
    assert (scene.tokens("prompt"), scene.tokens("completion")) == (50, 30)


def test_another_worker_is_paid_for_what_the_client_lacks() -> None:
    scene = Scene(6000)
    request = scene.request()
    request.begin(0)
    request.begin(40)
    assert scene.left() == 6000 - 40 - 100
    request.settle(90)
    assert scene.left() == 5910


def test_requests_over_the_rate_take_turns() -> None:
    scene = Scene(600)
    scene.account.take(600)
    first, second = scene.request(), scene.request()
    waits = [each.extend(10) for each in (first, second, first, second)]
    assert waits == pytest.approx([0, 1, 2, 3])


def test_a_request_that_would_be_held_back_for_over_a_minute_is_given_up() -> None:
    scene = Scene(600)
    request = scene.request()
    request.begin(0)
    request.pay_prompt(1300)
    with pytest.raises(RateLimitedError, match="tokens per minute are used up") as raised:
        request.extend(5)
    assert raised.value.retry_after_s == pytest.approx(71)
    request.settle(10)
    assert scene.account.reserve(0) == pytest.approx(71)


@given(st.integers(60, 10_000), st.integers(1, 5), st.integers(1, 3))
def test_streams_together_get_the_rate_and_no_more(
    per_minute: int, streams: int, choices: int
) -> None:
    """Workers that compute at once whatever they have credit for."""
    scene = Scene(per_minute)
    requests = [scene.request(choices=choices) for _ in range(streams)]
    half = requests[0].window_tokens // 2
    due_s = [0.0] * streams
    made = 0
    for request in requests:
        request.begin(0)
        made += request.window_tokens * choices
    while made < 3 * per_minute:
        index = min(range(streams), key=due_s.__getitem__)
        scene.now_s = max(scene.now_s, due_s[index])
        wait_s = requests[index].extend(half)
        assert wait_s <= MAX_PAUSE_S
        due_s[index] = scene.now_s + wait_s
        made += half * choices
    # All that they hold beyond what is due: the first window and the credit under way.
    ahead = 2 * streams * choices * requests[0].window_tokens
    end_s = max(due_s)
    assert made <= per_minute + per_minute * end_s / 60 + ahead
    assert made >= per_minute * end_s / 60 - ahead
