"""Looks at a checkpoint's weight files before anything is loaded: are they there, and whole?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.source import read_json

_SAFE = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_INDEX = ".index.json"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""Of the safetensors library."""

PICKLE_REFUSAL = (
    "{where} has pickled weights only ({name}), and reading a pickle can run code: convert them "
    "to safetensors, or allow them with --allow-pickle if you trust where they come from"
)


def check_weight_files(folder: Path, *, allow_pickle: bool) -> bool:
    """Looks for the weights of a checkpoint's folder, in the order of transformers.

    Returns whether they are safetensors.

    Raises:
        StartError: there are none, only pickled ones without `allow_pickle`, a shard is missing,
            or a file is cut off or no such file at all.
    """
    if files := _files(folder, _SAFE):
        for path in files:
            _check_safetensors(path)
        return True
    files = _files(folder, _PICKLED)
    if not files:
        raise StartError(
            f"folder {folder} has no weights: neither {_SAFE} nor {_SAFE}{_INDEX} is there"
        )
    if not allow_pickle:
        raise StartError(PICKLE_REFUSAL.format(where=f"folder {folder}", name=_PICKLED))
    for path in files:
        _check_pickle(path)
    return False


def _files(folder: Path, name: str) -> list[Path]:
    """The one file of this name, else all shards that an index of this name lists, else none."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}{_INDEX}"
    if not index.is_file():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise StartError(f"{index} has no weight_map, which tells where each tensor is")
    names = sorted({str(each) for each in shards.values()})
    _require_files(index, names)
    return [folder / each for each in names]


def _require_files(index: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise StartError(
            f"{index} lists {missing[0]}{others}, which is not there: copy or download it again"
        )


def _check_safetensors(path: Path) -> None:
    """Reads the header: its length, what it lists, and whether the file goes as far."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > _MAX_HEADER_BYTES:
            raise StartError(f"{path} is damaged, or no safetensors file: copy it again")
        header = _parse(file.read(length))
    if header is None and length + _LENGTH_BYTES <= size:
        raise StartError(f"{path} is damaged, or no safetensors file: copy it again")
    end = max((each["data_offsets"][1] for each in (header or {}).values()), default=0)
    expected = _LENGTH_BYTES + length + end
    if size < expected:
        raise StartError(
            f"{path} is cut off: it has {size:,} of at least {expected:,} bytes: copy it again"
        )


def _parse(header: bytes) -> dict[str, Any] | None:
    """What a header lists: tensors by name. None where it is no such header."""
    try:
        tensors = {
            name: each for name, each in json.loads(header).items() if name != "__metadata__"
        }
        for each in tensors.values():
            int(each["data_offsets"][1])
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        return None
    return tensors


def _check_pickle(path: Path) -> None:
    """A whole zip archive, as torch writes it, or a pickle from before it did."""
    with path.open("rb") as file:
        start = file.read(2)
    if not zipfile.is_zipfile(path) and start[:1] != b"\x80":
        raise StartError(f"{path} is damaged, or holds no weights of torch: copy it again")
