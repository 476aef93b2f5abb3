"""A setting that cannot be stops the start, naming its option."""

from __future__ import annotations

from typing import Any

import pytest

from services.controller.leases import LeaseTerms
from services.controller.settings import ControllerSettings
from services.mesh.errors import StartError


def test_defaults() -> None:
    settings = ControllerSettings()
    assert settings.port == 21001
    assert settings.lease_terms() == LeaseTerms(ttl_s=6.0, heartbeat_interval_s=2.0)
    assert settings.controller_id


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"port": -1}, "--port"),
        ({"port": 65_536}, "--port"),
        ({"metrics_port": 65_536}, "--metrics-port"),
        ({"controller_id": ""}, "--id"),
        ({"controller_id": "a\nb"}, "--id"),
        ({"lease_ttl_s": 3.9}, "--lease-ttl"),
        ({"lease_ttl_s": float("nan")}, "--lease-ttl"),
        ({"heartbeat_interval_s": 0.0}, "--heartbeat-interval"),
        ({"dial_limit_s": 0.0}, "--dial-limit"),
        ({"dial_limit_s": float("nan")}, "--dial-limit"),
        ({"command_limit_s": -1.0}, "--command-limit"),
        ({"adapter_limit_s": 0.0}, "--adapter-limit"),
        ({"first_frame_limit_s": 0.0}, "first_frame_limit_s"),
        ({"max_workers": 0}, "--max-workers"),
        ({"max_watchers": 0}, "--max-watchers"),
        ({"max_dials": 0}, "max_dials"),
        ({"max_pending_changes": 0}, "max_pending_changes"),
    ],
    ids=str,
)
def test_bad_values(values: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named):
        ControllerSettings(**values)
