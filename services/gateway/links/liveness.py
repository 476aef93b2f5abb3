"""Whether a worker that owes answers still lives. Pure: what passes are ticks of our own clock.

The gateway looks at a worker ten times within `hung_after_s`. A worker from which nothing has come
for three looks is asked; one that has neither sent nor answered anything for ten looks hangs. Looks
are counted, not seconds: on a machine that is so busy that a worker answers late, the gateway looks
late, too, so that nobody is blamed for it; and a gateway that was stopped itself blames nobody.
"""

from __future__ import annotations

from enum import Enum

LOOKS_UNTIL_HUNG = 10
LOOKS_UNTIL_ASKED = 3
"""An answer may take all looks that are left: seven tenths of `hung_after_s`."""


class Verdict(Enum):
    """What to do after a look."""

    WAIT = "wait"
    ASK = "ask"
    GIVE_UP = "give up"


class Liveness:
    """How long a worker has been silent."""

    def __init__(self) -> None:
        self._silent_looks = 0
        self._has_heard = False

    def hear(self) -> None:
        """Something came from the worker."""
        self._has_heard = True

    def look(self, *, is_owed: bool) -> Verdict:
        """One look. `is_owed` tells whether a request runs there."""
        if self._has_heard or not is_owed:
            self._has_heard = False
            self._silent_looks = 0
            return Verdict.WAIT
        self._silent_looks += 1
        if self._silent_looks >= LOOKS_UNTIL_HUNG:
            return Verdict.GIVE_UP
        return Verdict.ASK if self._silent_looks == LOOKS_UNTIL_ASKED else Verdict.WAIT
