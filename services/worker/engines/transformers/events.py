"""Turns sampled tokens into the events of a sequence."""

from __future__ import annotations

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
from services.worker.engines.transformers.sampling.sampler import Sampled
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.text.output import Ending
from services.worker.engines.transformers.text.token_texts import TokenTexts


def started(sequence: Sequence) -> list[SequenceEvent]:
    """The first events: Started, and the repeated prompt where it was asked for."""
    sequence.started = True
    start = Started(len(sequence.request.prompt_ids), sequence.cached_tokens or 0)
    events = [_event(sequence, start)]
    if sequence.request.echo_text and not sequence.continues:
        events.append(_event(sequence, Chunk(sequence.request.echo_text, ())))
    return events


def sampled(
    sequence: Sequence, token: Sampled, texts: TokenTexts, now_s: float
) -> list[SequenceEvent]:
    """Adds a token to its sequence. Returns a chunk when one is due, and the end if it is there."""
    if sequence.first_token_s is None:
        sequence.first_token_s = now_s
    if sequence.credit_tokens is not None:
        sequence.credit_tokens -= 1
    text, ending = sequence.output.take(token.token_id)
    sequence.unsent_text += text
    sequence.unsent_ids.append(token.token_id)
    if token.logprob is not None:
        sequence.unsent_logprobs.append(_logprob(token, texts))
    if ending is not None:
        return finished(sequence, ending, now_s)
    if len(sequence.unsent_ids) < sequence.request.sampling.stream_interval_tokens:
        return []
    return [_chunk(sequence)]


def finished(sequence: Sequence, ending: Ending, now_s: float) -> list[SequenceEvent]:
    """The last events: what was not sent yet, and Finished."""
    sequence.ending = ending
    events = [_chunk(sequence)] if sequence.unsent_ids or sequence.unsent_text else []
    event = Finished(
        reason=ending.reason,
        prompt_tokens=len(sequence.request.prompt_ids),
        completion_tokens=len(sequence.output.token_ids),
        cached_tokens=sequence.cached_tokens or 0,
        timing=_timing(sequence, now_s),
        stop_string=ending.stop_string,
        stop_token_id=ending.stop_token_id,
    )
    return [*events, _event(sequence, event)]


def failed(sequence: Sequence, error: MeshError) -> SequenceEvent:
    """The last event of a sequence that ends badly."""
    return _event(sequence, Failed(error))


def _chunk(sequence: Sequence) -> SequenceEvent:
    chunk = Chunk(sequence.unsent_text, tuple(sequence.unsent_ids), tuple(sequence.unsent_logprobs))
    sequence.unsent_text = ""
    sequence.unsent_ids.clear()
    sequence.unsent_logprobs.clear()
    return _event(sequence, chunk)


def _event(sequence: Sequence, event: Started | Chunk | Finished | Failed) -> SequenceEvent:
    number = sequence.next_number
    sequence.next_number += 1
    return SequenceEvent(sequence.request.key, sequence.choice_index, number, event)


def _timing(sequence: Sequence, now_s: float) -> Timing:
    arrived_s = sequence.request.arrived_s
    prefill_s = now_s if sequence.prefill_started_s is None else sequence.prefill_started_s
    first_s = prefill_s if sequence.first_token_s is None else sequence.first_token_s
    return Timing(prefill_s - arrived_s, first_s - prefill_s, max(0.0, now_s - first_s))


def _logprob(token: Sampled, texts: TokenTexts) -> TokenLogprob:
    assert token.logprob is not None
    top = tuple(_plain_logprob(token_id, value, texts) for token_id, value in token.top)
    plain = _plain_logprob(token.token_id, token.logprob, texts)
    return TokenLogprob(plain.token_id, plain.text, plain.token_bytes, plain.logprob, top)


def _plain_logprob(token_id: int, value: float, texts: TokenTexts) -> TokenLogprob:
    return TokenLogprob(token_id, texts.text_of(token_id), texts.bytes_of(token_id), value)
