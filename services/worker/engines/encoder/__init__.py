"""The engine for models that read whole texts: embedding models and cross-encoders.

A thread of its own repeats one thing: take the texts that wait, as many of like length as a batch
holds, and compute them in one forward pass, whoever asked for them.

A call's way: `engine` takes it, `text_reading` makes rows of token ids of it, `backlog` chooses
which rows run together, `model` computes them by the `recipe` of the checkpoint, and `job` gathers
what comes for its caller.
"""

from services.worker.engines.encoder.engine import EncoderEngine
from services.worker.engines.encoder.settings import EncoderSettings

__all__ = ["EncoderEngine", "EncoderSettings"]
