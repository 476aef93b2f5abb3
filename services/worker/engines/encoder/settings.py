"""What can be set on the encoder engine."""

from __future__ import annotations

from dataclasses import dataclass

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings

POOLINGS = ("auto", "mean", "cls", "last", "max")

MAX_RUNNING = 256
MAX_WAITING = 1024


@dataclass(frozen=True)
class EncoderSettings:
    """How a checkpoint is loaded to embed or to score, and how its texts are batched.

    Raises:
        StartError: a value is out of range; the message names the option.
    """

    checkpoint: EngineSettings
    """What is loaded and onto what; `max_running` and `max_waiting` count calls here, and
    `context_length_tokens` is the longest text. What concerns generation is not used."""

    batch_tokens: int | None = None
    """Tokens of one forward pass, padding included. More uses an accelerator better; fewer let a
    call that comes meanwhile begin sooner, and waste less on padding. Default: 1,024 on a CPU,
    where larger batches bring nothing (benchmarks/embeddings), 16,384 on an accelerator."""

    pooling: str = "auto"
    """One of POOLINGS: how the vectors of a text's tokens become one. "auto" is as the checkpoint
    says (1_Pooling of sentence-transformers), else the mean, or the last token where a model sees
    backwards only."""

    truncates: bool = False
    """Whether texts that are longer than the model reads are cut where a call does not say. Off by
    default: a client that is not told of it searches by the beginnings of its texts."""

    def __post_init__(self) -> None:
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise StartError(f"--batch-tokens is {self.batch_tokens}: it must be 1 or more")
        if self.pooling not in POOLINGS:
            raise StartError(f"unknown pooling {self.pooling!r}: choose from {', '.join(POOLINGS)}")
