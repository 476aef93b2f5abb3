"""What a step does, as the scheduler hands it to the model runner."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.engines.transformers.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """The part of a sequence that a step computes: `tokens` tokens from position `start` on.

    The sequence's blocks hold all before, and have room for these.
    """

    sequence: Sequence
    start: int
    tokens: int
    samples: bool
    """Whether the step ends with a new token of the sequence."""
    scores_prompt: bool = False
    """Whether the log probabilities of the prompt's tokens are wanted."""

    @classmethod
    def of(cls, sequence: Sequence, tokens: int) -> Work:
        """The next tokens of a sequence."""
        samples = tokens == sequence.uncomputed_tokens
        return cls(sequence, sequence.computed_tokens, tokens, samples, sequence.scores_prompt)

    @property
    def logit_rows(self) -> int:
        """For how many of its tokens, the last ones, logits are wanted."""
        return self.tokens if self.scores_prompt else int(self.samples)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One step."""

    works: list[Work]
    """Decoding sequences by rising slot, then pieces of prompts. Empty if nobody can go on."""
    preempted: list[Sequence]
    """Sequences that have lost their slot and blocks since the last step."""
