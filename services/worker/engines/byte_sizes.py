"""Sizes of memory as people write them: "4GiB"."""

from __future__ import annotations

import re

from services.mesh.errors import StartError

_PATTERN = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)", re.IGNORECASE)
_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}


def read_bytes(option: str, text: str) -> int:
    """Bytes of "512MiB", "4 GiB", "16GB" or "1000000".

    Raises:
        StartError: it is no such size, or zero; the message names the option.
    """
    match = _PATTERN.fullmatch(text.strip())
    factor = _UNITS.get(match["unit"].lower()) if match else None
    if match is None or factor is None or not (size := int(float(match["number"]) * factor)):
        raise StartError(
            f"{option} is {text!r}; write a size over 0 in bytes or with a unit of B, KiB, MiB, "
            "GiB, TiB, KB, MB, GB or TB, such as 4GiB"
        )
    return size
