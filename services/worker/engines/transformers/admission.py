"""Turns an engine request into sequences that can run, or says why it never can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.mesh.errors import ContextLengthError, InvalidRequestError, UnsupportedError
from services.worker.engines.base import EngineRequest, OutputSoFar, Sampling
from services.worker.engines.sampling import resolve_sampling
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output
from services.worker.engines.transformers.text.prompts import PromptReader
from services.worker.engines.transformers.text.token_texts import TokenTexts


class Admission:
    """Checks requests against the model. For one thread at a time."""

    def __init__(
        self,
        prompts: PromptReader,
        texts: TokenTexts,
        *,
        sampling_defaults: Mapping[str, Any],
        end_ids: frozenset[int],
        vocabulary_size: int,
        context_length_tokens: int,
    ) -> None:
        self._prompts = prompts
        self._texts = texts
        self._defaults = sampling_defaults
        self._end_ids = end_ids
        self._vocabulary_size = vocabulary_size
        self._context_tokens = context_length_tokens

    def sequences(self, request: EngineRequest, arrived_s: float) -> list[Sequence]:
        """One sequence for each choice, or for each that is still to continue.

        Raises:
            InvalidRequestError, ContextLengthError, UnsupportedError: see Engine.submit.
        """
        sampling = resolve_sampling(
            request.sampling_fields, self._defaults, vocabulary_size=self._vocabulary_size
        )
        if request.echo and sampling.top_logprobs is not None:
            raise UnsupportedError(
                "this engine has no log probabilities of the prompt: leave out echo or "
                "top_logprobs",
                field="echo",
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
        )
        sequences = [
            self._sequence(shared, choice_index, max_tokens, request.credit_tokens)
            for choice_index in range(sampling.choices)
        ]
        for choice_index, so_far in request.output_so_far.items():
            if not 0 <= choice_index < sampling.choices:
                raise InvalidRequestError(
                    f"output_so_far names choice {choice_index} of {sampling.choices}",
                    field="output_so_far.choice_index",
                )
            self._continue(sequences[choice_index], so_far)
        return sequences

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
        self, shared: Request, choice_index: int, max_tokens: int, credit_tokens: int
    ) -> Sequence:
        sampling = shared.sampling
        text = self._texts.detokenizer(
            shared.prompt_ids, skip_special_tokens=sampling.skip_special_tokens
        )
        output = Output(text, sampling, max_tokens, self._end_ids)
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
        delivered = so_far.delivered_bytes
        encoded = (sequence.request.echo_text + text).encode()
        if delivered > len(encoded):
            raise InvalidRequestError(
                f"delivered_bytes is {delivered}: the output so far holds {len(encoded)} bytes",
                field=f"{field}.delivered_bytes",
            )
        try:
            sequence.unsent_text = encoded[delivered:].decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError(
                f"delivered_bytes is {delivered}: that is inside a character",
                field=f"{field}.delivered_bytes",
            ) from error
        sequence.next_number = so_far.next_number
        sequence.continues = True
