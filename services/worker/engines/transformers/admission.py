"""Turns an engine request into sequences that can run, or says why it never can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.mesh.errors import ContextLengthError, InvalidRequestError
from services.worker.engines.bad_words import BadWords, bad_words
from services.worker.engines.base import EngineRequest, OutputSoFar, Sampling
from services.worker.engines.constraints import ConstraintCompiler
from services.worker.engines.sampling import resolve_sampling
from services.worker.engines.transformers.best_of import BestOf
from services.worker.engines.transformers.sampling.prompt_scores import PromptScores
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output
from services.worker.engines.transformers.text.prompts import PromptReader
from services.worker.engines.transformers.text.token_texts import TokenTexts

MAX_PROMPT_SCORES = 250_000
"""Log probabilities of a prompt, its own and the likeliest ones of every choice. One message can
carry them."""


class Admission:
    """Checks requests against the model. For one thread at a time.

    Args:
        compiler: makes the constraints of outputs. None: they are refused.
        can_score_prompts: whether the model's logits are there for all positions of a prompt.
    """

    def __init__(
        self,
        prompts: PromptReader,
        texts: TokenTexts,
        *,
        sampling_defaults: Mapping[str, Any],
        end_ids: frozenset[int],
        vocabulary_size: int,
        context_length_tokens: int,
        compiler: ConstraintCompiler | None = None,
        can_score_prompts: bool = True,
    ) -> None:
        self._prompts = prompts
        self._texts = texts
        self._defaults = sampling_defaults
        self._end_ids = end_ids
        self._vocabulary_size = vocabulary_size
        self._context_tokens = context_length_tokens
        self._compiler = compiler
        self._unsupported = {
            name
            for name, is_missing in (
                ("constraint", compiler is None),
                ("prompt_top_logprobs", not can_score_prompts),
            )
            if is_missing
        }

    def sequences(self, request: EngineRequest, arrived_s: float) -> list[Sequence]:
        """One sequence for each choice, or for each that is still to continue.

        Raises:
            InvalidRequestError, ContextLengthError, UnsupportedError: see Engine.submit.
        """
        sampling = resolve_sampling(
            request.sampling_fields,
            self._defaults,
            vocabulary_size=self._vocabulary_size,
            unsupported=self._unsupported,
        )
        prompt = self._prompts.read(request.prompt)
        max_tokens = self._max_tokens(request, sampling, len(prompt.ids))
        shared = Request(
            key=request.key,
            request_id=request.request_id,
            prompt_ids=prompt.ids,
            echo_text=prompt.text if request.echo else "",
            sampling=sampling,
            deadline_s=request.deadline_s,
            priority=request.priority,
            arrived_s=arrived_s,
            prompt_scores=_prompt_scores(sampling, prompt.ids),
            best_of=_best_of(request, sampling),
            visible_markers=request.visible_markers,
        )
        forbidden = self._bad_words(sampling)
        # What is held back to the end cannot earn credit.
        credit_tokens = 0 if sampling.ranks else request.credit_tokens
        sequences = [
            self._sequence(shared, choice_index, max_tokens, credit_tokens, forbidden)
            for choice_index in range(sampling.draws)
        ]
        for choice_index, so_far in request.output_so_far.items():
            if not 0 <= choice_index < sampling.choices:
                raise InvalidRequestError(
                    f"output_so_far names choice {choice_index} of {sampling.choices}",
                    field="output_so_far.choice_index",
                )
            if not sampling.ranks:
                self._continue(sequences[choice_index], so_far)
        return sequences

    def _bad_words(self, sampling: Sampling) -> BadWords | None:
        if not sampling.bad_words:
            return None
        return bad_words(sampling.bad_words, self._prompts.plain_ids)

    def _max_tokens(self, request: EngineRequest, sampling: Sampling, prompt_tokens: int) -> int:
        room = self._context_tokens - prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {prompt_tokens} tokens, and this model's context holds "
                f"{self._context_tokens}, the completion included",
                field="prompt",
            )
        asked = request.sampling_fields.get("max_tokens")
        if asked is not None and asked > room:
            raise ContextLengthError(
                f"max_tokens is {asked} and the prompt has {prompt_tokens} tokens: together they "
                f"are over this model's context of {self._context_tokens}; at most {room} fit",
                field="sampling.max_tokens",
            )
        if sampling.min_tokens > room:
            raise ContextLengthError(
                f"min_tokens is {sampling.min_tokens}, and after the prompt's {prompt_tokens} "
                f"tokens {room} fit this model's context of {self._context_tokens}",
                field="sampling.min_tokens",
            )
        return min(room, sampling.max_tokens or room)

    def _sequence(
        self,
        shared: Request,
        choice_index: int,
        max_tokens: int,
        credit_tokens: int,
        forbidden: BadWords | None,
    ) -> Sequence:
        sampling = shared.sampling
        text = self._texts.detokenizer(
            shared.prompt_ids,
            skip_special_tokens=sampling.skip_special_tokens,
            visible_markers=shared.visible_markers,
        )
        constraint = None
        if sampling.constraint is not None and self._compiler is not None:
            constraint = self._compiler.compile(sampling.constraint)
        output = Output(
            text,
            sampling,
            max_tokens,
            self._end_ids,
            bad_words=forbidden,
            constraint=constraint,
        )
        return Sequence(shared, choice_index, output, credit_tokens or None)

    def _continue(self, sequence: Sequence, so_far: OutputSoFar) -> None:
        """Takes the tokens of another worker over, so that the next is the one after them."""
        field = "output_so_far"
        self._prompts.require_known(so_far.token_ids, f"{field}.token_ids")
        text = ""
        for token_id in so_far.token_ids:
            piece, sequence.ending = sequence.output.take(token_id)
            text += piece
            if sequence.ending is not None:
                break
        text = sequence.request.echo_text + text
        sequence.text_so_far = text
        if so_far.delivered_bytes is not None:
            sequence.unsent_text = _undelivered(text, so_far.delivered_bytes)
        sequence.next_number = so_far.next_number
        sequence.continues = True


def _undelivered(text: str, delivered: int) -> str:
    field = "output_so_far.delivered_bytes"
    encoded = text.encode()
    if delivered > len(encoded):
        raise InvalidRequestError(
            f"delivered_bytes is {delivered}: the output so far holds {len(encoded)} bytes",
            field=field,
        )
    try:
        return encoded[delivered:].decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"delivered_bytes is {delivered}: that is inside a character", field=field
        ) from error


def _prompt_scores(sampling: Sampling, prompt_ids: tuple[int, ...]) -> PromptScores | None:
    top_count = sampling.prompt_top_logprobs
    if top_count is None:
        return None
    if len(prompt_ids) * (top_count + 1) * sampling.choices > MAX_PROMPT_SCORES:
        raise InvalidRequestError(
            f"prompt_top_logprobs is {top_count}, choices is {sampling.choices} and the prompt has "
            f"{len(prompt_ids)} tokens: at most {MAX_PROMPT_SCORES} log probabilities of a prompt "
            "are told",
            field="sampling.prompt_top_logprobs",
        )
    return PromptScores(prompt_ids, top_count)


def _best_of(request: EngineRequest, sampling: Sampling) -> BestOf | None:
    if not sampling.ranks:
        return None
    if any(so_far.token_ids for so_far in request.output_so_far.values()):
        raise InvalidRequestError(
            "a request with best_of over choices has no output so far: nothing of it is sent "
            "before its end",
            field="output_so_far.token_ids",
        )
    return BestOf(request.key, draws=sampling.draws, choices=sampling.choices)
