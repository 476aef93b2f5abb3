"""The controller counts the workers of each model, down to none."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.controller.metrics import MAX_MODELS, ControllerMetrics
from services.controller.registry import Capacity, Model, Worker, WorkerState

NAME = "tokenmesh_controller_model_workers"


def worker(worker_id: str, *models: str, state: WorkerState = WorkerState.SERVING) -> Worker:
    return Worker(
        worker_id=worker_id,
        incarnation="first",
        address="127.0.0.1:1",
        state=state,
        models=tuple(Model(name, (), (), b"") for name in models),
        capacity=Capacity(max_running=1, max_waiting=1, kv_total_tokens=1, speed=1.0),
    )


def test_a_model_is_counted_at_its_serving_workers_and_is_0_when_they_are_gone() -> None:
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    assert registry.get_sample_value(NAME, {"model": "a"}) is None

    drains = worker("two", "a", state=WorkerState.DRAINING)
    metrics.count_workers([worker("one", "a", "b"), drains, worker("three", "b")])
    assert registry.get_sample_value(NAME, {"model": "a"}) == 1
    assert registry.get_sample_value(NAME, {"model": "b"}) == 2
    assert registry.get_sample_value("tokenmesh_controller_workers", {"state": "draining"}) == 1

    metrics.count_workers([drains])
    assert registry.get_sample_value(NAME, {"model": "a"}) == 0
    assert registry.get_sample_value(NAME, {"model": "b"}) == 0


def test_models_are_labels_up_to_a_bound() -> None:
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    metrics.count_workers([worker("one", *(f"model-{each}" for each in range(MAX_MODELS + 5)))])
    assert registry.get_sample_value(NAME, {"model": f"model-{MAX_MODELS - 1}"}) == 1
    assert registry.get_sample_value(NAME, {"model": f"model-{MAX_MODELS}"}) is None
    assert registry.get_sample_value(NAME, {"model": "other"}) == 5
