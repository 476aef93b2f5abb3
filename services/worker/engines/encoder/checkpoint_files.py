"""The small files of a checkpoint beside its model: in a folder, or on a hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.mesh.errors import StartError


class CheckpointFiles:
    """Reads files of one checkpoint.

    Args:
        path: the folder or the hub id, for messages.
        find: where a file is on this machine; None where the checkpoint has no such file.
    """

    def __init__(self, path: str, find: Callable[[str], Path | None]) -> None:
        self.path = path
        self.find = find

    def json(self, name: str) -> dict[str, Any] | None:
        """A file that holds one JSON object; None where there is none.

        Raises:
            StartError: it does not.
        """
        content = self._content(name)
        if content is not None and not isinstance(content, dict):
            raise StartError(f"{name} of {self.path} holds no JSON object")
        return content

    def json_list(self, name: str) -> list[Any] | None:
        """A file that holds one JSON list; None where there is none.

        Raises:
            StartError: it does not.
        """
        content = self._content(name)
        if content is not None and not isinstance(content, list):
            raise StartError(f"{name} of {self.path} holds no JSON list")
        return content

    def _content(self, name: str) -> Any:
        file = self.find(name)
        if file is None:
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StartError(f"cannot read {name} of {self.path}: {error}") from error
