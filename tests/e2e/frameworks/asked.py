"""What each use of a mesh asks: use_….py BASE_URL MODEL.

The programs run in an environment that knows nothing of TokenMesh. Each prints the name of every
use that went well; the first that does not ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

BASE_URL, MODEL = sys.argv[1:]
KEY = "unused"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
MESSAGES = [{"role": "user", "content": QUESTION}]
ENOUGH_TOKENS = 400
CityName = Literal["Paris", "Rome"]
CITIES = ("Paris", "Rome")


class City(BaseModel):
    """A city, of few values and no other fields: the demo model would write on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: CityName
    is_capital: bool


def run(*uses: Callable[[], None]) -> None:
    """Runs one use after another."""
    for use in uses:
        use()
        sys.stdout.write(f"{use.__name__}\n")
        sys.stdout.flush()
