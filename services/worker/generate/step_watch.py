"""Notices an engine that hangs within a step, while the rest of the process lives. Pure.

An engine works while its load changes or its steps have output: the load counts each prompt token
that a chunk of a prefill has computed, so a long prefill is work. Time is handed in.
"""

from __future__ import annotations

from services.worker.engines.base import EngineLoad


class StepWatch:
    """Looks at an engine from time to time.

    Args:
        limit_s: how long it may do nothing for requests that it could compute.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._seen: tuple[EngineLoad, int] | None = None
        self._since_s = 0.0

    def hangs(self, now_s: float, load: EngineLoad, steps: int, *, is_owed: bool) -> bool:
        """Whether it has done nothing for too long.

        `steps` counts those that had output. `is_owed` tells whether a request runs that is neither
        over nor out of credit.
        """
        seen = (load, steps)
        if not is_owed or seen != self._seen:
            self._seen = seen
            self._since_s = now_s
        return now_s - self._since_s >= self.limit_s
