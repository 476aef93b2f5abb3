"""What identifies a checkpoint's weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.source import Source

_SUFFIXES = frozenset({".json", ".jinja", ".model", ".safetensors", ".txt"})
_BLOCK_BYTES = 1024 * 1024
_BLOCKS = 16


def checkpoint_revision(source: Source, config: Any, settings: EngineSettings) -> str:
    """What identifies the weights: a folder's hash, else the hub's commit."""
    if source.folder is not None:
        return folder_revision(source.folder)
    return getattr(config, "_commit_hash", None) or settings.revision or "main"


def folder_revision(folder: Path) -> str:
    """A hash over the checkpoint's files: equal for copies, different for different weights.

    Small files are read whole; of a large one, 16 MiB spread over it, its head included, which
    two trainings never have in common. File times do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            _add_content(digest, path)
    return digest.hexdigest()[:16]


def _add_content(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK_BYTES:
            digest.update(file.read())
            return
        for block in range(_BLOCKS):
            file.seek(block * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
