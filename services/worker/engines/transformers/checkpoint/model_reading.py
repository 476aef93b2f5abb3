"""Reads a checkpoint's weights into a model, all of them, and takes no half for a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import structlog

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.source import Source
from services.worker.engines.transformers.checkpoint.weight_files import PICKLE_REFUSAL

log = structlog.get_logger()


def read_model(
    source: Source, family: Any, *, use_safetensors: bool | None, arguments: Mapping[str, Any]
) -> Any:
    """The model with its weights, ready to run.

    Args:
        source: the checkpoint.
        family: the class of transformers that knows which architecture it is.
        use_safetensors: whether to read safetensors only, or pickles only; None is either.
        arguments: more of `from_pretrained`, such as the type and the devices.

    Raises:
        StartError: the weights cannot be read, some are missing, or have another shape than the
            configuration says.
    """
    # It would ask a service of the hub to convert the checkpoint, in the name of whoever runs this.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    model, findings = source.load(
        "the weights",
        lambda: _from_pretrained(source, family, use_safetensors, arguments),
    )
    if mismatched := sorted(findings["mismatched_keys"]):
        name, there, wanted = mismatched[0]
        raise StartError(
            f"the weights of {source.path} do not match its config.json: {name} is of shape "
            f"{_shape(there)}, and must be {_shape(wanted)}{_more(mismatched)}"
        )
    if missing := sorted(findings["missing_keys"]):
        raise StartError(
            f"the weights of {source.path} are not complete: {missing[0]} is missing"
            f"{_more(missing)}"
        )
    if unexpected := findings["unexpected_keys"]:
        log.info("weights that the model does not use are left out", tensors=len(unexpected))
    return model.eval()


def _from_pretrained(
    source: Source, family: Any, use_safetensors: bool | None, arguments: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    try:
        # What is missing or does not match is reported here, and stops the start: transformers
        # would go on with random numbers for what is missing.
        found: tuple[Any, dict[str, Any]] = family.from_pretrained(
            source.path,
            use_safetensors=use_safetensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
            **source.options,
        )
    except OSError as error:
        if source.folder is None and use_safetensors and "use_safetensors" in str(error):
            raise StartError(
                PICKLE_REFUSAL.format(where=source.path, name="no safetensors")
            ) from error
        raise
    return found


def _shape(shape: Any) -> str:
    return "x".join(str(each) for each in shape)


def _more(found: list[Any]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""
