"""A worker's settings, identity and throughput."""

from __future__ import annotations

import re
from typing import Any

import pytest

from services.mesh.errors import StartError
from services.worker.attach.identity import Identity, advertised_address
from services.worker.attach.throughput import Throughput
from services.worker.engines.scripted import ScriptedSettings
from services.worker.engines.settings import EngineSettings
from services.worker.settings import WorkerSettings, read_labels


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"port": -1}, "--port"),
        ({"metrics_port": 70_000}, "--metrics-port"),
        ({"controllers": ("host",)}, "--controller"),
        ({"controllers": ("host:0",)}, "--controller"),
        ({"advertise_address": ":1"}, "--advertise-address"),
        ({"speed": 0.0}, "--speed"),
        ({"speed": float("nan")}, "--speed"),
        ({"grace_period_s": -1.0}, "--grace-period"),
        ({"hung_step_s": 0.0}, "--hung-step"),
        ({"labels": {"": "x"}}, "--labels"),
        ({"worker_id": "a\nb"}, "--worker-id"),
    ],
)
def test_a_bad_setting_names_its_option(setting: dict[str, Any], option: str) -> None:
    with pytest.raises(StartError, match=re.escape(option)):
        WorkerSettings(ScriptedSettings(), **setting)


def test_the_engine_follows_from_its_settings() -> None:
    assert WorkerSettings(ScriptedSettings()).engine_name == "scripted"
    assert WorkerSettings(EngineSettings("m")).engine_name == "transformers"


def test_labels() -> None:
    assert read_labels("") == {}
    assert read_labels("zone=a, gpu=h=200,") == {"zone": "a", "gpu": "h=200"}
    with pytest.raises(StartError, match="'zone'"):
        read_labels("zone")


def test_the_advertised_address_leads_somewhere() -> None:
    assert advertised_address("127.0.0.1", 5) == "127.0.0.1:5"
    assert advertised_address("gpu-7", 5) == "gpu-7:5"
    host, _, port = advertised_address("0.0.0.0", 5).rpartition(":")
    assert port == "5"
    assert host not in {"", "0.0.0.0"}


def test_each_run_has_its_own_incarnation() -> None:
    assert Identity("w", "a:1").incarnation != Identity("w", "a:1").incarnation


def test_throughput_is_over_the_time_between_two_looks() -> None:
    throughput = Throughput(100, now_s=10.0)
    assert throughput.tokens_per_second(150, now_s=12.0) == 25.0
    assert throughput.tokens_per_second(150, now_s=13.0) == 0.0
    assert throughput.tokens_per_second(160, now_s=13.0) == 0.0
