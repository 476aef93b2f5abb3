"""A setting that cannot be stops the start, by its option's name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from services.gateway.links.breaker import BreakerTuning
from services.gateway.settings import GatewaySettings
from services.mesh.errors import StartError


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"port": -1}, "--port"),
        ({"metrics_port": 70_000}, "--metrics-port"),
        ({"controllers": ()}, "--controller"),
        ({"controllers": ("nowhere",)}, "--controller"),
        ({"controllers": ("host:0",)}, "--controller"),
        ({"controllers": ("http://host:1",)}, "--controller"),
        ({"controllers": ("a:1", "a:1")}, "--controller"),
        ({"gateway_id": ""}, "--id"),
        ({"routing_policy": "best"}, "--routing-policy"),
        ({"max_requests": 0}, "--max-requests"),
        ({"request_timeout_s": 0.0}, "--request-timeout"),
        ({"request_timeout_s": float("nan")}, "--request-timeout"),
        ({"max_attempts": 0}, "--max-attempts"),
        ({"max_losses": -1}, "--max-losses"),
        ({"resume_wait_s": -0.1}, "--resume-wait"),
        ({"resume_wait_s": float("nan")}, "--resume-wait"),
        ({"hung_after_s": 0.0}, "--hung-after"),
        ({"poison_deaths": -1}, "--poison-deaths"),
        ({"quarantine_s": -1.0}, "--quarantine"),
        ({"credit_window_tokens": 1}, "--credit-window"),
        ({"forget_after_s": -1.0}, "--forget-after"),
        ({"grace_period_s": -1.0}, "--grace-period"),
        ({"breaker": BreakerTuning(faults_to_trip=0)}, "--breaker-faults"),
        ({"breaker": BreakerTuning(initial_backoff_s=0)}, "--breaker-backoff"),
        ({"breaker": BreakerTuning(initial_backoff_s=9)}, "--breaker-backoff"),
        ({"max_conversations": 0}, "--max-conversations"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError) as raised:
        GatewaySettings(**settings)
    message = str(raised.value)
    assert message.startswith(f"{named} ")
    assert "\n" not in message


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:65535", "[::1]:21001", "a-b.c:80"])
def test_addresses_that_can_be(address: str) -> None:
    assert GatewaySettings(controllers=(address,)).controllers == (address,)


def test_a_gateway_imports_no_engine() -> None:
    heavy = "{'torch', 'transformers', 'numpy'}"
    script = f"import sys, services.gateway.server; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
