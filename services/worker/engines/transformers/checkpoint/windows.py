"""Finds layers that see a window of tokens without telling their attention function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.worker.engines.transformers.checkpoint.memory import LayerShape


def untold_windows(config: Any, layers: Sequence[LayerShape]) -> list[int]:
    """Layers whose window is in the model's own mask only, which an attention function of ours
    does not get. A proof with fewer tokens than the window would not notice.

    Args:
        config: of the model.
        layers: what each layer's attention function was told.
    """
    text = config.get_text_config(decoder=True)
    if not getattr(text, "sliding_window", None):
        return []
    if getattr(text, "use_sliding_window", True) is False:
        return []
    kinds = dict(enumerate(getattr(text, "layer_types", None) or ()))
    return [
        layer.layer
        for layer in layers
        if layer.window is None
        and kinds.get(layer.layer, "sliding_attention") == "sliding_attention"
    ]
