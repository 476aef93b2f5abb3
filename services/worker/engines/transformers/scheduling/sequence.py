"""A sequence: one choice of a request, on its way through the engine."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from services.worker.engines.base import Sampling, TokenLogprob
from services.worker.engines.transformers.best_of import BestOf
from services.worker.engines.transformers.sampling.prompt_scores import PromptScores
from services.worker.engines.transformers.text.output import Ending, Output


@dataclass(frozen=True, eq=False)
class Request:
    """What the choices of a request share."""

    key: Hashable
    request_id: str
    prompt_ids: tuple[int, ...]
    echo_text: str
    """Sent before the output. Empty when the prompt is not to be repeated."""
    sampling: Sampling
    deadline_s: float | None
    """On the monotonic clock."""
    priority: int
    arrived_s: float
    adapter: str = ""
    """What computes it beside the model's own weights; nothing is shared across adapters."""
    prompt_hashes: list[bytes] = field(default_factory=list)
    """Hashes of the prompt's full blocks, as far as they were asked for."""
    prompt_scores: PromptScores | None = None
    """Set where the log probabilities of the prompt are wanted."""
    best_of: BestOf | None = None
    """Set where more outputs are computed than are returned."""
    visible_markers: frozenset[str] = frozenset()
    """Special tokens that are shown."""


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice of a request. It waits, runs in blocks of the KV cache, and ends."""

    request: Request
    choice_index: int
    output: Output
    credit_tokens: int | None
    """Tokens that may still be produced. None is unlimited."""
    next_number: int = 0
    """Number of its next event."""
    continues: bool = False
    """Whether another worker has produced some of it."""
    text_so_far: str = ""
    """All text that the tokens before this engine's first hold."""
    unsent_text: str = ""
    """Text that the tokens before this engine's first hold, and nobody has sent."""
    unsent_ids: list[int] = field(default_factory=list)
    unsent_logprobs: list[TokenLogprob] = field(default_factory=list)
    ending: Ending | None = None
    """Set from the start where the output that it continues was already over."""
    rank: tuple[int, float, int] = (0, 0.0, 0)
    """Its place in the order of who runs: lower comes sooner and is preempted later."""
    slot: int | None = None
    """Its row among the running sequences. None while it waits."""
    blocks: list[int] = field(default_factory=list)
    """Its block table: the blocks of the KV cache that hold its tokens, in order."""
    computed_tokens: int = 0
    """Tokens whose keys and values are in its blocks."""
    sealed_blocks: int = 0
    """Blocks that are full, computed, and shown to the prefix cache."""
    output_hashes: list[bytes] = field(default_factory=list)
    """Hashes of the full blocks behind the prompt's, as far as they were asked for."""
    cached_tokens: int | None = None
    """Prompt tokens found in the prefix cache when it first ran. None before."""
    started: bool = False
    prefill_started_s: float | None = None
    first_token_s: float | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens."""
        return len(self.request.prompt_ids) + len(self.output.token_ids)

    @property
    def uncomputed_tokens(self) -> int:
        """Tokens to compute before the next can be sampled: 1 while decoding."""
        return self.total_tokens - self.computed_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the whole prompt must be computed here, for its log probabilities."""
        scores = self.request.prompt_scores
        return (
            scores is not None
            and not scores.is_complete
            and not self.started
            and not self.output.token_ids
        )

    @property
    def has_credit(self) -> bool:
        """Whether it may produce a token."""
        return self.credit_tokens is None or self.credit_tokens > 0

    def token_ids(self, start: int, end: int) -> list[int]:
        """Its tokens, prompt then output, from position `start` up to `end`."""
        prompt_ids = self.request.prompt_ids
        length = len(prompt_ids)
        if start >= length:
            return self.output.token_ids[start - length : end - length]
        ids = list(prompt_ids[start:end])
        ids.extend(self.output.token_ids[: max(0, end - length)])
        return ids
