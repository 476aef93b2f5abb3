"""What an engine is: the seam between the mesh and the library that computes tokens.

An engine runs apart from the event loop (in a thread, or on timers) and hands out one StepOutput
for each of its steps. All methods are called from the event loop and return at once, unless they
are coroutines. tests/contract/ holds what every engine must obey.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from services.mesh.errors import MeshError
from services.worker.engines.encoding import EmbedCall, Embedded, ScoreCall, Scored
from services.worker.engines.forms import Form

if TYPE_CHECKING:
    from services.worker.chat_formats.base import ChatFormat


class FinishReason(Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, resolved: the request's fields over the model's generation config.

    `top_k` 0 keeps all tokens. The token at position p of choice c is a pure function of
    (seed, c, p) and the logits.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    include_stop_string: bool = False
    skip_special_tokens: bool = True
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    choices: int = 1
    best_of: int | None = None
    top_logprobs: int | None = None
    prompt_top_logprobs: int | None = None
    constraint: Form | None = None
    stream_interval_tokens: int = 1

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken: FastChat's rule."""
        return self.temperature < 1e-5 or self.top_p < 1e-8

    @property
    def draws(self) -> int:
        """How many outputs are computed, of which the likeliest `choices` are returned."""
        return max(self.choices, self.best_of or 0)

    @property
    def ranks(self) -> bool:
        """Whether more outputs are computed than are returned."""
        return self.draws > self.choices


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation in the form that chat templates take: dicts as in OpenAI's API."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    rendered: str | None = None
    """What `Engine.render` has made of it, so that it is not rendered twice."""


Prompt = ChatPrompt | str | tuple[int, ...]


@dataclass(frozen=True)
class OutputSoFar:
    """What a choice produced elsewhere, from which it continues here."""

    token_ids: tuple[int, ...]
    next_number: int
    delivered_bytes: int | None
    """Of the text that the tokens release. None: nothing of it is sent again."""
    reasoning_tokens: int = 0
    """Of `token_ids`, those that were spent on reasoning. Nothing to engines."""


@dataclass(frozen=True)
class EngineRequest:
    """One request. `key` is unique among the requests that the engine holds.

    Fields of `sampling_fields` are those the client set, by the names of
    tokenmesh.mesh.v1.SamplingParameters; the engine resolves the rest from the model's generation
    config and checks them against the model (`sampling.resolve_sampling`).
    """

    key: Hashable
    request_id: str
    model: str
    prompt: Prompt
    sampling_fields: Mapping[str, Any]
    deadline_s: float | None = None
    """On the engine's monotonic clock."""
    priority: int = 0
    credit_tokens: int = 0
    """0 is unlimited."""
    echo: bool = False
    output_so_far: Mapping[int, OutputSoFar] = field(default_factory=dict)
    visible_markers: frozenset[str] = frozenset()
    """Special tokens, by their texts, that are shown in the output although the others are not."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token's probability: natural logarithm, before temperature and filters."""

    token_id: int
    text: str
    token_bytes: bytes
    logprob: float
    """NaN for the first token of a prompt, which nothing stands before."""
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Timing:
    """Where a sequence's time went, in seconds."""

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is computed. First event of a sequence that does not fail before."""

    prompt_tokens: int
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """One for each prompt token, where they were asked for."""
    text_so_far: str = ""
    """Of a choice that goes on: all text that the tokens of its output so far release."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """New output. `text` may be empty, and never holds half a character."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The sequence ended well. Token counts are those of this choice.

    With best_of, choice 0 counts the completion tokens of the outputs that are not returned, too.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    timing: Timing
    stop_string: str | None = None
    stop_token_id: int | None = None
    reasoning_tokens: int = 0
    """Engines leave it at 0: who parses their output counts them."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The sequence ended badly."""

    error: MeshError


@dataclass(frozen=True, slots=True)
class SequenceEvent:
    """One event of one sequence. Numbers run from 0 (or next_number) without a gap."""

    key: Hashable
    choice_index: int
    number: int
    event: Started | Chunk | Finished | Failed


@dataclass(frozen=True, slots=True)
class StepOutput:
    """All that one engine step produced."""

    step: int
    events: Sequence[SequenceEvent]


@dataclass(frozen=True)
class ModelDescription:
    """A model as the engine serves it."""

    name: str
    aliases: tuple[str, ...]
    revision: str
    quantization: str
    dtype: str
    context_length_tokens: int
    vocabulary_size: int
    capabilities: frozenset[str]
    """Names of tokenmesh.mesh.v1.Capability without their prefix, such as "CHAT"."""
    loaded_at_s: float
    """Seconds since the epoch."""
    embedding_dimensions: int = 0
    """Length of an embedding. 0 where the model does not embed."""
    execution: str = ""
    """How the engine runs it, where it has several ways: "paged" (batches over a paged KV cache)
    or "serial" (one sequence after another: slower)."""
    chat_format: ChatFormat | None = None
    """How the model writes reasoning and tool calls. None: its output is not parsed."""


@dataclass(frozen=True)
class EngineCapacity:
    """What the engine can bear. More than max_waiting requests are refused."""

    max_running: int
    max_waiting: int
    kv_total_tokens: int


@dataclass(frozen=True)
class EngineLoad:
    """How busy the engine is just now. `generated_tokens` counts since the start."""

    running: int
    waiting: int
    kv_used_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class EngineCounters:
    """What the engine has done since the start, and how its cache stands.

    Where an engine has no such thing a field is None, and a mapping lacks the key.
    """

    steps: int | None = None
    """Steps that computed something."""
    decoded_tokens: int | None = None
    """Tokens computed of sequences that decode, one for each of them in each step."""
    prefilled_tokens: int | None = None
    """Tokens computed of prompts, and of outputs that are computed anew."""
    phase_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each phase of the steps: "schedule", "forward", "sample", "publish"."""
    kv_blocks: Mapping[str, int] = field(default_factory=dict)
    """Blocks of the KV cache that are "used" by sequences, only "cached", and "free"."""
    preemptions: int | None = None
    """How often a sequence lost its blocks to others."""
    prefix_queried_tokens: int | None = None
    """Tokens that were looked up in the prefix cache when their sequences began to run."""
    prefix_hit_tokens: int | None = None
    """Those of them that it held."""
    out_of_memory: int | None = None
    """Forward passes that ran out of memory."""
    forms_compiled: int | None = None
    """Forms of outputs that were compiled."""
    form_compile_s: float | None = None
    """Seconds that this took, in threads of its own."""
    form_cache_hits: int | None = None
    """Outputs whose form had been compiled before, or was being compiled."""
    masks: int | None = None
    """Tokens before which a form said which might come."""
    mask_s: float | None = None
    """Seconds that this took, while the model computed."""


class Engine(Protocol):
    """Computes tokens for many requests at once, or vectors and scores, as its models can."""

    name: str

    @property
    def models(self) -> Sequence[ModelDescription]:
        """What it serves. Not empty once started."""
        ...

    @property
    def capacity(self) -> EngineCapacity:
        """What it can bear."""
        ...

    def load(self) -> EngineLoad:
        """How busy it is."""
        ...

    def counters(self) -> EngineCounters:
        """What it has done so far. From any thread."""
        ...

    async def start(self) -> None:
        """Loads the models.

        Raises:
            StartError: one line that says what to change.
        """
        ...

    async def stop(self) -> None:
        """Fails what still runs with UnavailableError, ends `steps`, and frees the memory."""
        ...

    async def submit(self, request: EngineRequest) -> None:
        """Puts a request in the queue. Renders and tokenizes off the event loop.

        All else of the request comes through `steps`: for each choice Started, Chunks, and one
        Finished or Failed.

        Raises:
            InvalidRequestError, ContextLengthError: the request can never run here.
            UnsupportedError: the model generates nothing.
            ModelNotFoundError: the engine does not serve the model.
            QueueFullError: as many wait as may.
            DeadlineError: the deadline has passed.
        """
        ...

    def abort(self, key: Hashable) -> None:
        """Gives a request up: its place is free after the running step. Ignores unknown keys."""
        ...

    def grant_credit(self, key: Hashable, tokens: int) -> None:
        """Lets each choice of a request produce more. Unknown keys are ignored."""
        ...

    def steps(self) -> AsyncIterator[StepOutput]:
        """The outputs, in order, until the engine stops. For one consumer."""
        ...

    async def render(self, model: str, prompt: ChatPrompt) -> str:
        """The text that the model reads of a conversation, off the event loop.

        Raises:
            ModelNotFoundError, InvalidRequestError, UnsupportedError: as `submit`.
        """
        ...

    async def embed(self, call: EmbedCall) -> Embedded:
        """A vector of length 1 for each input. To be cancelled when nobody wants them any more.

        Raises:
            InvalidRequestError, ContextLengthError: an input, or `dimensions`, cannot be.
            UnsupportedError: the model embeds nothing.
            ModelNotFoundError, QueueFullError, DeadlineError: as `submit`.
            OutOfMemoryError: one input alone does not fit.
            UnavailableError: the engine stops.
        """
        ...

    async def score(self, call: ScoreCall) -> Scored:
        """How relevant each document is to its query. Otherwise as `embed`."""
        ...

    async def tokenize(self, model: str, prompt: Prompt, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt.

        Raises:
            ModelNotFoundError, InvalidRequestError: as `submit`.
        """
        ...

    async def detokenize(
        self, model: str, token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> str:
        """Text of token ids.

        Raises:
            ModelNotFoundError: the engine does not serve the model.
            InvalidRequestError: an id is not in the vocabulary.
        """
        ...
