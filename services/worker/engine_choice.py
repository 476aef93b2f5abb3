"""Makes the engine that the settings are of."""

from __future__ import annotations

from services.worker.engines import create
from services.worker.engines.base import Engine
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings


def make_engine(settings: EngineSettings | ScriptedSettings) -> Engine:
    """An engine that has not loaded its model yet.

    Raises:
        StartError: a library that the engine needs is not installed.
    """
    name = "scripted" if isinstance(settings, ScriptedSettings) else "transformers"
    return create(name, settings)
