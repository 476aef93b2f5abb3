"""Metrics: labels are bounded, and the endpoint serves."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from services.mesh.errors import StartError
from services.mesh.metrics import OTHER, BoundedLabel, MetricsServer


def test_a_label_takes_no_more_values_than_its_limit() -> None:
    label = BoundedLabel(limit=2)
    assert [label(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_the_endpoint_says_what_is_running() -> None:
    server = MetricsServer("gateway", "127.0.0.1", 0, CollectorRegistry())
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.stop()
    assert 'tokenmesh_build_info{protocol="1",release="' in text
    assert 'service="gateway"' in text


def test_a_busy_port_says_what_to_do() -> None:
    server = MetricsServer("gateway", "127.0.0.1", 0, CollectorRegistry())
    try:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(StartError, match="--metrics-port"):
            MetricsServer("worker", "127.0.0.1", port, CollectorRegistry())
    finally:
        server.stop()
