"""Workers and models as gateways know them."""

from __future__ import annotations

from typing import Any

from services.gateway.discovery.fleet import Adapter, Model, Worker


def model(name: str = "m", *, adapters: tuple[str, ...] = (), **fields: Any) -> Model:
    """A model that chats and completes."""
    fields.setdefault("capabilities", frozenset({"CHAT", "COMPLETE"}))
    return Model(name, adapters=tuple(Adapter(adapter) for adapter in adapters), **fields)


def worker(
    worker_id: str = "w",
    incarnation: str = "1",
    *models: Model,
    attached_at_s: float = 0.0,
    **fields: Any,
) -> Worker:
    """A worker; it serves the model "m" where none is given."""
    return Worker(
        worker_id,
        incarnation,
        "127.0.0.1:1",
        models or (model(),),
        attached_at_s=attached_at_s,
        **fields,
    )
