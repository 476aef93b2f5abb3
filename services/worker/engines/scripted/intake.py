"""Checks a request, and makes the job that the scripted engine runs."""

from __future__ import annotations

from services.mesh.errors import ContextLengthError, InvalidRequestError
from services.worker.engines.base import EngineRequest, Sampling
from services.worker.engines.sampling import resolve_sampling
from services.worker.engines.scripted import vocabulary
from services.worker.engines.scripted.ending import choose_length
from services.worker.engines.scripted.jobs import Job
from services.worker.engines.scripted.prompt import (
    check_token_ids,
    last_said,
    prompt_token_ids,
)
from services.worker.engines.scripted.script import Script, given_script, long_script
from services.worker.engines.scripted.sequence import UNLIMITED_CREDIT, Sequence
from services.worker.engines.scripted.settings import ScriptedSettings

_UNSUPPORTED = ("bad_words", "best_of", "constraint", "prompt_top_logprobs")


def make_job(request: EngineRequest, settings: ScriptedSettings, now_s: float) -> Job:
    """A job that waits for its turn.

    Raises:
        InvalidRequestError, UnsupportedError: the request is wrong; the error names the field.
        ContextLengthError: it never fits the context, or the KV memory.
    """
    sampling = resolve_sampling(
        request.sampling_fields,
        {},
        vocabulary_size=vocabulary.VOCABULARY_SIZE,
        unsupported=_UNSUPPORTED,
    )
    token_ids = prompt_token_ids(request.prompt)
    room = _room_tokens(len(token_ids), sampling, settings)
    given = _given_script(request, sampling, settings)
    answer_tokens = len(given.chunks) + 1 if given else settings.pace.answer_tokens
    length = choose_length(sampling, room, answer_tokens)
    _check_output_so_far(request, sampling)
    echo = vocabulary.decode(token_ids, skip_special_tokens=False) if request.echo else ""
    choices = [
        Sequence(
            key=request.key,
            choice_index=index,
            script=given or _long_script(token_ids, sampling, index),
            sampling=sampling,
            length=length,
            credit_tokens=request.credit_tokens or UNLIMITED_CREDIT,
            so_far=request.output_so_far.get(index),
            echo=echo,
            visible_markers=request.visible_markers,
        )
        for index in range(sampling.choices)
    ]
    return Job(request, token_ids, len(token_ids) + length.tokens, choices, now_s)


def _given_script(
    request: EngineRequest, sampling: Sampling, settings: ScriptedSettings
) -> Script | None:
    if not settings.repeats:
        return None
    return given_script(
        last_said(request.prompt),
        skip_special_tokens=sampling.skip_special_tokens,
        visible_markers=request.visible_markers,
    )


def _long_script(token_ids: list[int], sampling: Sampling, choice_index: int) -> Script:
    greedy = sampling.greedy or sampling.top_k == 1
    return long_script(token_ids, 0 if greedy else sampling.seed, 0 if greedy else choice_index)


def _room_tokens(prompt_tokens: int, sampling: Sampling, settings: ScriptedSettings) -> int:
    limit = min(settings.context_length_tokens, settings.kv_total_tokens)
    room = limit - prompt_tokens
    if room < (sampling.max_tokens or 1):
        raise ContextLengthError(
            f"the prompt has {prompt_tokens} tokens and max_tokens is "
            f"{sampling.max_tokens or 'not set'}, but a sequence holds {limit} tokens",
            field="prompt" if room < 1 else "sampling.max_tokens",
        )
    return room


def _check_output_so_far(request: EngineRequest, sampling: Sampling) -> None:
    for index, so_far in request.output_so_far.items():
        if index >= sampling.choices:
            raise InvalidRequestError(
                f"output_so_far is of choice {index}, but there are {sampling.choices}",
                field="output_so_far.choice_index",
            )
        check_token_ids(so_far.token_ids, "output_so_far.token_ids")
