"""State that a few architectures keep in their modules, not in the cache that they are given.

One sequence's state would be the next one's, were it not swapped between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class ModuleState:
    """The attributes of a model's modules that differ from sequence to sequence. Mostly none."""

    def __init__(
        self, places: Sequence[tuple[dict[str, Any], str]], initial: Sequence[Any]
    ) -> None:
        self._places = places
        self.initial = tuple(initial)
        """Values before the first token."""

    @classmethod
    def find(cls, model: torch.nn.Module, run: Callable[[], object]) -> ModuleState:
        """Finds what a run changes: attributes and buffers that are other objects after it.

        What is changed in place is not found.
        """
        before = [
            (attributes, name, value)
            for module in model.modules()
            for attributes in (vars(module), module._buffers)
            for name, value in list(attributes.items())
        ]
        run()
        changed = [each for each in before if each[0].get(each[1]) is not each[2]]
        return cls(
            [(attributes, name) for attributes, name, _ in changed],
            [value for _, _, value in changed],
        )

    def put(self, values: Sequence[Any]) -> None:
        """Gives the modules the values of a sequence."""
        for (attributes, name), value in zip(self._places, values, strict=True):
            attributes[name] = value

    def take(self) -> tuple[Any, ...]:
        """What the modules hold now."""
        return tuple(attributes[name] for attributes, name in self._places)
