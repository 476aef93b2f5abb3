"""An engine without a model: it obeys the protocol and says a script at a settable pace."""

from services.worker.engines.scripted.engine import ScriptedEngine
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import ScriptedSettings

__all__ = ["Pace", "ScriptedEngine", "ScriptedSettings"]
