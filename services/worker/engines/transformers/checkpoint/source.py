"""Where a checkpoint is, and its configuration: the first things that can be wrong with one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
import transformers
from transformers import AutoConfig

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings

log = structlog.get_logger()

T = TypeVar("T")

REMOTE_CODE_REFUSAL = (
    "{path} brings Python code of its own, which this worker would run with all its rights: read "
    "it, then allow it with --trust-remote-code"
)


@dataclass(frozen=True)
class Source:
    """A checkpoint's place: a folder, or a Hugging Face hub id."""

    path: str
    folder: Path | None
    """None for a hub id."""
    options: dict[str, Any]
    """What every loader of transformers is told beside the path."""

    @property
    def name(self) -> str:
        """What the model is called where nobody names it."""
        return self.folder.resolve().name if self.folder else self.path

    def load(self, what: str, load: Callable[[], T]) -> T:
        """Turns whatever a library raises while it loads into one line.

        Args:
            what: the part that is loaded, as in "the tokenizer".
            load: loads it.

        Raises:
            StartError: it cannot be loaded.
        """
        try:
            return load()
        except StartError:
            raise
        except ImportError as error:
            raise StartError(
                f"cannot load {what} of {self.path}: a Python package is missing: {one_line(error)}"
            ) from error
        except Exception as error:
            log.debug("cannot load", what=what, source=self.path, exc_info=True)
            if "trust_remote_code" in str(error):
                raise StartError(REMOTE_CODE_REFUSAL.format(path=self.path)) from error
            raise StartError(f"cannot load {what} of {self.path}: {one_line(error)}") from error


def find_source(settings: EngineSettings) -> Source:
    """The folder that the model path names, or the hub id that it is.

    Raises:
        StartError: there is no such folder, or it holds no checkpoint.
    """
    text = settings.model_path
    options = {
        "revision": settings.revision or "main",
        "trust_remote_code": settings.trust_remote_code,
    }
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise StartError(f"folder {text} holds no checkpoint: it has no config.json")
        if settings.revision is not None:
            raise StartError(f"revision {settings.revision!r} is for hub ids, and {text} a folder")
        return Source(str(path), path, options)
    if path.exists():
        raise StartError(f"{text} is a file: give the folder of the checkpoint")
    if text.startswith((".", "~", os.sep)) or text.endswith(os.sep) or text.count("/") > 1:
        raise StartError(f"there is no folder {text}")
    return Source(text, None, options)


def read_config(source: Source) -> Any:
    """The configuration of the model.

    Raises:
        StartError: it is no JSON object, holds a value that cannot be, or is of a model type that
            transformers does not know.
    """
    if source.folder is not None:
        _check_config_file(source.folder / "config.json", source)
        generation = source.folder / "generation_config.json"
        if generation.is_file():
            # transformers goes on without one that it cannot read.
            read_json(generation)
    return source.load(
        "the configuration (config.json)",
        lambda: AutoConfig.from_pretrained(source.path, **source.options),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        StartError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StartError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} holds no JSON object")
    return content


def one_line(error: BaseException) -> str:
    """What an error says, in one line of a bearable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A first line that ends in a colon announces the second, which says what is wrong.
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text if len(text) <= 300 else text[:297] + "..."


def _check_config_file(path: Path, source: Source) -> None:
    config = read_json(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise StartError(f"{path} names no model_type, so nobody knows what model it is")
    if model_type in transformers.CONFIG_MAPPING:
        return
    if "auto_map" not in config:
        raise StartError(
            f"{path} is of model type {model_type!r}, which transformers "
            f"{transformers.__version__} does not know: a later transformers may"
        )
    if not source.options["trust_remote_code"]:
        raise StartError(REMOTE_CODE_REFUSAL.format(path=source.path))
