"""Makes the engine that the settings ask for. What an engine needs is imported when it is made."""

from __future__ import annotations

from services.mesh.errors import StartError
from services.worker.engines.base import Engine
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings

ENGINES = ("transformers", "scripted")


def make_engine(settings: EngineSettings | ScriptedSettings) -> Engine:
    """An engine that has not loaded its model yet.

    Raises:
        StartError: a library that the engine needs is not installed.
    """
    if isinstance(settings, ScriptedSettings):
        from services.worker.engines.scripted import ScriptedEngine

        return ScriptedEngine(settings)
    try:
        from services.worker.engines.transformers import TransformersEngine
    except ModuleNotFoundError as error:
        raise StartError(
            f"the transformers engine needs {error.name}, which is not installed: "
            'pip install "tokenmesh[transformers]"'
        ) from error
    return TransformersEngine(settings)
