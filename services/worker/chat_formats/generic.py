"""For templates without a place for tools: we tell the model of them, in a message of our own.

Calls are written as in `hermes`: of all ways, models that were never told of it follow it best.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.chat_formats.hermes import Hermes


@dataclass(frozen=True)
class Generic(Hermes):
    """Calls as in `hermes`, tools described by `services.worker.chat_templates`."""

    @property
    def describes_tools(self) -> bool:
        """See ChatFormat."""
        return True
