"""Who a call comes from, and what its request is expected to take."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.gateway.api.callers import caller_of
from services.gateway.requests.cost import (
    ANSWER_TOKENS,
    MAX_ANSWER_TOKENS,
    MAX_PROMPT_TOKENS,
    expected_tokens,
)
from tokenmesh.worker.v1 import worker_pb2


class Context:
    """A call's peer and metadata."""

    def __init__(self, peer: str, *addresses: str) -> None:
        self._peer = peer
        self._metadata = (
            ("x-forwarded-for", "1.2.3.4"),
            *(("x-envoy-external-address", each) for each in addresses),
        )

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "addresses", "identity"),
    [
        ("ipv4:10.0.0.7:5000", (), "10.0.0.7"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:5000", (), "2001:db8:1:2::/64"),
        ("ipv6:[::1]:5000", (), "::/64"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:5000", (), "10.0.0.7"),
        ("ipv4:127.0.0.1:5000", ("10.0.0.9",), "10.0.0.9"),
        ("ipv4:127.0.0.1:5000", ("2001:db8:1:2:9::9",), "2001:db8:1:2::/64"),
        ("unix:/tmp/socket", (), "unix"),
    ],
)
def test_the_identity_is_the_address_that_envoy_saw(
    peer: str, addresses: tuple[str, ...], identity: str
) -> None:
    caller = caller_of(cast("Any", Context(peer, *addresses)), "someone")
    assert (caller.identity, caller.user) == (identity, "someone")


def test_the_cost_is_of_prompt_and_answers() -> None:
    short = worker_pb2.Start(model="m", text="Hi")
    assert ANSWER_TOKENS < expected_tokens(short) < ANSWER_TOKENS + 10
    longer = worker_pb2.Start(model="m", text="word " * 4000)
    assert expected_tokens(longer) > expected_tokens(short) + 4000
    several = worker_pb2.Start(model="m", text="Hi")
    several.sampling.max_tokens = 100
    several.sampling.choices = 3
    assert 300 < expected_tokens(several) < 320
    greedy = worker_pb2.Start(model="m", text="x" * 10_000_000)
    greedy.sampling.max_tokens = 1_000_000
    assert expected_tokens(greedy) == MAX_PROMPT_TOKENS + MAX_ANSWER_TOKENS
