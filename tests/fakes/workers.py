"""Workers as the controller's pure parts know them."""

from __future__ import annotations

from services.controller.registry import Capacity, Model, Worker, WorkerState

CAPACITY = Capacity(max_running=4, max_waiting=8, kv_total_tokens=0, speed=1.0)


def model(name: str, *, aliases: tuple[str, ...] = (), adapters: tuple[str, ...] = ()) -> Model:
    """A model of that name."""
    return Model(name, aliases, adapters, serialized=name.encode())


def worker(
    worker_id: str = "w", incarnation: str = "a", *, state: WorkerState = WorkerState.SERVING
) -> Worker:
    """A worker that serves one model."""
    return Worker(
        worker_id=worker_id,
        incarnation=incarnation,
        address="127.0.0.1:1",
        state=state,
        models=(model("m", aliases=("m-latest",), adapters=("m-sql",)),),
        capacity=CAPACITY,
    )
