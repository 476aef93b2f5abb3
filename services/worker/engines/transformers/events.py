"""Turns sampled tokens into the events of a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence as Rows

from services.mesh.errors import MeshError
from services.worker.engines.base import (
    Chunk,
    Failed,
    Finished,
    SequenceEvent,
    Started,
    Timing,
    TokenLogprob,
)
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.text.output import Ending
from services.worker.engines.transformers.text.token_texts import TokenTexts


def started(sequence: Sequence, texts: TokenTexts) -> list[SequenceEvent]:
    """The first events: Started, and the repeated prompt where it was asked for."""
    sequence.started = True
    first: list[Started | Chunk] = [
        Started(
            len(sequence.request.prompt_ids),
            sequence.cached_tokens or 0,
            _prompt_logprobs(sequence, texts),
            sequence.text_so_far,
        )
    ]
    if sequence.request.echo_text and not sequence.continues:
        first.append(Chunk(sequence.request.echo_text, ()))
    return _numbered(sequence, *first)


def add(sequence: Sequence, token: Sampled, now_s: float) -> Ending | None:
    """Adds a token to its sequence. Returns why it ends there, as far as ids tell."""
    if sequence.first_token_s is None:
        sequence.first_token_s = now_s
    if sequence.credit_tokens is not None:
        sequence.credit_tokens -= 1
    return sequence.output.add(token.token_id)


def sampled(
    sequence: Sequence, token: Sampled, ending: Ending | None, texts: TokenTexts, now_s: float
) -> list[SequenceEvent]:
    """Of the token added last, a chunk when one is due, and the end if it is there.

    Args:
        sequence: that it was added to.
        token: the token.
        ending: what `add` said of it.
        texts: the tokens' texts.
        now_s: when it was added.
    """
    text, ending = sequence.output.tell(token.token_id, ending)
    sequence.unsent_text += text
    sequence.unsent_ids.append(token.token_id)
    request = sequence.request
    if token.logprob is not None and request.sampling.top_logprobs is not None:
        sequence.unsent_logprobs.append(_logprob(token, texts))
    if request.best_of is not None and token.logprob is not None:
        request.best_of.add_logprob(sequence.choice_index, token.logprob)
    if ending is not None:
        return finished(sequence, ending, now_s)
    if (
        request.best_of is not None
        or len(sequence.unsent_ids) < request.sampling.stream_interval_tokens
    ):
        return []
    return _numbered(sequence, _chunk(sequence))


def finished(sequence: Sequence, ending: Ending, now_s: float) -> list[SequenceEvent]:
    """The last events: what was not sent yet, and Finished."""
    sequence.ending = ending
    rest = [_chunk(sequence)] if sequence.unsent_ids or sequence.unsent_text else []
    event = Finished(
        reason=ending.reason,
        prompt_tokens=len(sequence.request.prompt_ids),
        completion_tokens=len(sequence.output.token_ids),
        cached_tokens=sequence.cached_tokens or 0,
        timing=_timing(sequence, now_s),
        stop_string=ending.stop_string,
        stop_token_id=ending.stop_token_id,
    )
    return _numbered(sequence, *rest, event)


def failed(sequence: Sequence, error: MeshError) -> list[SequenceEvent]:
    """The last event of a sequence that ends badly. With best_of, that of all choices."""
    return _numbered(sequence, Failed(error))


def _chunk(sequence: Sequence) -> Chunk:
    chunk = Chunk(sequence.unsent_text, tuple(sequence.unsent_ids), tuple(sequence.unsent_logprobs))
    sequence.unsent_text = ""
    sequence.unsent_ids.clear()
    sequence.unsent_logprobs.clear()
    return chunk


def _numbered(
    sequence: Sequence, *events: Started | Chunk | Finished | Failed
) -> list[SequenceEvent]:
    """The next events of a sequence, as far as they are due."""
    request = sequence.request
    if request.best_of is not None:
        return request.best_of.take(sequence.choice_index, events)
    first = sequence.next_number
    sequence.next_number += len(events)
    return [
        SequenceEvent(request.key, sequence.choice_index, number, event)
        for number, event in enumerate(events, first)
    ]


def _timing(sequence: Sequence, now_s: float) -> Timing:
    arrived_s = sequence.request.arrived_s
    prefill_s = now_s if sequence.prefill_started_s is None else sequence.prefill_started_s
    first_s = prefill_s if sequence.first_token_s is None else sequence.first_token_s
    return Timing(prefill_s - arrived_s, first_s - prefill_s, max(0.0, now_s - first_s))


def _prompt_logprobs(sequence: Sequence, texts: TokenTexts) -> tuple[TokenLogprob, ...]:
    scores = sequence.request.prompt_scores
    if scores is None or not scores.is_complete:
        return ()
    return tuple(
        _token_logprob(token_id, texts, math.nan)
        if score is None
        else _token_logprob(token_id, texts, score.logprob, score.top)
        for token_id, score in scores.in_order()
    )


def _logprob(token: Sampled, texts: TokenTexts) -> TokenLogprob:
    assert token.logprob is not None
    return _token_logprob(token.token_id, texts, token.logprob, token.top)


def _token_logprob(
    token_id: int, texts: TokenTexts, value: float, top: Rows[tuple[int, float]] = ()
) -> TokenLogprob:
    return TokenLogprob(
        token_id,
        texts.text_of(token_id),
        texts.bytes_of(token_id),
        value,
        tuple(_token_logprob(other_id, texts, logprob) for other_id, logprob in top),
    )
