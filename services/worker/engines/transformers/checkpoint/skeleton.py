"""The model without its weights: to know their sizes, and to spread them, before they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import CustomDtype

from services.worker.engines.transformers.checkpoint.placement import CPU, DISK
from services.worker.engines.transformers.checkpoint.quantization import Quantization
from services.worker.engines.transformers.checkpoint.source import Source

_SHRUNK: Mapping[int, Any] = {8: torch.int8, 4: CustomDtype.INT4}


@dataclass(frozen=True)
class Skeleton:
    """A model on torch's meta device, where tensors have shapes and no memory."""

    model: Any

    def weight_bytes(self, quantization: Quantization | None) -> int:
        """Memory that the weights will take; tied ones count once."""
        return sum(self._sizes(quantization).values())

    def bytes_by_device(
        self, device_map: Mapping[str, str], quantization: Quantization | None
    ) -> dict[str, int]:
        """Memory that the weights will take of each device of a device map."""
        sizes: Counter[str] = Counter()
        for name, size in self._sizes(quantization).items():
            part = max((each for each in device_map if _is_within(name, each)), key=len)
            sizes[device_map[part]] += size
        return dict(sizes)

    def spread(
        self, limits: Mapping[str, int], quantization: Quantization | None
    ) -> dict[str, str]:
        """Which device each part of the model goes to: accelerate's device_map.

        The devices of `limits` fill one after the other; what fits on none goes to the disk. Layers
        are kept whole.
        """
        shrunk = {f"{name}.weight" for name in quantization.shrunk} if quantization else ()
        special = _SHRUNK[quantization.bits] if quantization else None
        # accelerate numbers accelerators, and calls the others by their names.
        names = {_key(name): name for name in limits}
        found = infer_auto_device_map(
            self.model,
            max_memory={_key(name): limit for name, limit in limits.items()},
            no_split_module_classes=sorted(getattr(self.model, "_no_split_modules", None) or ()),
            special_dtypes=dict.fromkeys(shrunk, special),
        )
        return {part: names.get(key, str(key)) for part, key in found.items()}

    def _sizes(self, quantization: Quantization | None) -> dict[str, int]:
        shrunk = {f"{name}.weight" for name in quantization.shrunk} if quantization else ()
        bits = quantization.bits if quantization else 0
        return {
            name: each.numel() * bits // 8 if name in shrunk else each.numel() * each.element_size()
            for name, each in self.model.named_parameters()
        }


def build_skeleton(
    source: Source,
    family: Any,
    config: Any,
    dtype: torch.dtype,
    model_arguments: Mapping[str, Any] | None = None,
) -> Skeleton:
    """The skeleton of the model that a configuration describes.

    Args:
        source: where the configuration is from.
        family: the class of transformers that knows which architecture it is.
        config: the configuration.
        dtype: the type that the weights will have.
        model_arguments: of the model's class, beside the configuration.

    Raises:
        StartError: transformers cannot build a model of this configuration.
    """

    def build() -> Any:
        with torch.device("meta"):
            return family.from_config(
                config,
                dtype=dtype,
                trust_remote_code=source.options["trust_remote_code"],
                **(model_arguments or {}),
            )

    return Skeleton(source.load("the model", build))


def is_offloaded(device_map: Mapping[str, str], device: str) -> bool:
    """Whether parts are brought to the device in every step."""
    away = {DISK} if device == CPU else {CPU, DISK}
    return not away.isdisjoint(device_map.values())


def _key(name: str) -> int | str:
    kind, _, index = name.partition(":")
    return int(index) if index else kind


def _is_within(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")
