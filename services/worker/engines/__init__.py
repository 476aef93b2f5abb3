"""The engines. Each stands in its own module and is imported only when it is chosen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from services.mesh.errors import StartError

if TYPE_CHECKING:
    from services.worker.engines.base import Engine

_FACTORIES = {
    "transformers": ("services.worker.engines.transformers", "TransformersEngine"),
    "encoder": ("services.worker.engines.encoder", "EncoderEngine"),
    "scripted": ("services.worker.engines.scripted", "ScriptedEngine"),
}

ENGINES = tuple(_FACTORIES)


def create(name: str, settings: object) -> Engine:
    """Makes the engine called `name`, not yet started, from the settings class of its own.

    Raises:
        StartError: there is no such engine, or a library that it needs is not installed.
    """
    if name not in _FACTORIES:
        raise StartError(f"unknown engine {name!r}: choose from {', '.join(ENGINES)}")
    module, factory = _FACTORIES[name]
    try:
        engine: Engine = getattr(import_module(module), factory)(settings)
    except ModuleNotFoundError as error:
        raise StartError(
            f"engine {name!r} needs the Python package {error.name!r}, which is not installed"
        ) from error
    return engine
