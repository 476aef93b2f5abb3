from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from services.cli.up import plan

OPTIONS = plan.MeshOptions(
    run_folder=Path("/run/mesh"),
    host="127.0.0.1",
    port=8000,
    models=(plan.ServedModel("/models/small", "small"),),
    engine="transformers",
    device="cpu",
    workers=2,
    threads_per_worker=3,
)
CONTROLLERS = ("127.0.0.1:4711", "127.0.0.1:4712")


def value_of(process: plan.ProcessPlan, option: str) -> str:
    return process.command[process.command.index(option) + 1]


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 4, 1), (1, 1, 1)]
)
def test_workers_share_the_cores(cores: int, workers: int, threads: int) -> None:
    assert plan.threads_per_worker(cores, workers) == threads


def test_each_service_takes_free_ports_and_announces_itself_in_the_run_folder() -> None:
    services = [
        *plan.controllers(OPTIONS),
        *plan.workers(OPTIONS, CONTROLLERS),
        plan.gateway(OPTIONS, CONTROLLERS),
    ]
    assert [service.name for service in services] == [
        "controller",
        "worker-1",
        "worker-2",
        "gateway",
    ]
    for service in services:
        assert value_of(service, "--port") == "0"
        assert value_of(service, "--metrics-port") == "0"
        assert value_of(service, "--ready-file") == str(service.ready_file)
        assert service.ready_file is not None
        assert {service.ready_file.parent, service.log_file.parent} == {OPTIONS.run_folder}


def test_services_listen_on_loopback_wherever_clients_connect() -> None:
    options = dataclasses.replace(OPTIONS, host="0.0.0.0")
    for service in (*plan.controllers(options), *plan.workers(options, CONTROLLERS)):
        assert value_of(service, "--host") == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:8000"),
        ("0.0.0.0", "127.0.0.1:8000"),
        ("192.0.2.7", "192.0.2.7:8000"),
        ("::", "[::1]:8000"),
        ("::1", "[::1]:8000"),
    ],
)
def test_where_clients_connect(host: str, address: str) -> None:
    assert dataclasses.replace(OPTIONS, host=host).client_address == address


def test_workers_and_gateways_know_every_controller() -> None:
    for service in (*plan.workers(OPTIONS, CONTROLLERS), plan.gateway(OPTIONS, CONTROLLERS)):
        options = zip(service.command, service.command[1:], strict=False)
        assert [value for name, value in options if name == "--controller"] == list(CONTROLLERS)


def test_responses_stay_in_the_folder_of_the_run() -> None:
    file = value_of(plan.gateway(OPTIONS, CONTROLLERS), "--responses-db")
    assert file == str(OPTIONS.run_folder / plan.RESPONSES_FILE)


def test_several_controllers_are_told_apart() -> None:
    planned = plan.controllers(dataclasses.replace(OPTIONS, controllers=2))
    assert [service.name for service in planned] == ["controller-1", "controller-2"]
    assert [value_of(service, "--id") for service in planned] == ["controller-1", "controller-2"]


def test_workers_get_what_the_user_chose() -> None:
    options = dataclasses.replace(OPTIONS, worker_options=("--max-running", "8"))
    for worker in plan.workers(options, CONTROLLERS):
        assert value_of(worker, "--model-path") == "/models/small"
        assert value_of(worker, "--model-names") == "small"
        assert value_of(worker, "--device") == "cpu"
        assert value_of(worker, "--threads") == "3"
        assert worker.command[-2:] == ("--max-running", "8")


def test_what_was_not_chosen_is_left_to_the_services() -> None:
    options = dataclasses.replace(OPTIONS, models=(plan.ServedModel(),), routing_policy=None)
    (worker, _), gateway = plan.workers(options, CONTROLLERS), plan.gateway(options, CONTROLLERS)
    assert not {"--model-path", "--model-names"} & set(worker.command)
    assert "--routing-policy" not in gateway.command


def test_a_mesh_ends_within_ten_seconds_even_if_every_process_has_to_be_killed() -> None:
    stages = (
        plan.envoy(OPTIONS, ["envoy"]),
        plan.workers(OPTIONS, CONTROLLERS)[0],
        *plan.controllers(OPTIONS),
    )
    assert sum(stage.stop_limit_s for stage in stages) < 10
