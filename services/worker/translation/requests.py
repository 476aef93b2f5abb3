"""From a Start frame to an engine's request."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from services.mesh.errors import DeadlineError, InvalidRequestError
from services.worker.engines.base import EngineRequest, OutputSoFar, Prompt
from services.worker.engines.forms import (
    CONSTRAINT_FIELD,
    Form,
    Grammar,
    Json,
    Literal,
    OneOf,
    Regex,
)
from services.worker.translation.prompts import chat_prompt
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2

# A year: timers cannot hold any number of seconds.
MAX_TIME_LEFT_S = 365 * 24 * 3600.0
# Leaves room to number what follows in 32 bits.
MAX_NEXT_NUMBER = 2**31


def engine_request(
    start: worker_pb2.Start,
    key: Hashable,
    *,
    now_s: float,
    credit_tokens: int,
    may_bring_template: bool,
) -> EngineRequest:
    """The request as an engine takes it. `now_s` is the engine's monotonic clock.

    Raises:
        InvalidRequestError, UnsupportedError: the frame is incomplete or wrong; the error names
            the field.
        DeadlineError: no time is left.
    """
    deadline_s = None
    if start.HasField("time_left"):
        time_left_s = start.time_left.seconds + start.time_left.nanos / 1e9
        if time_left_s <= 0:
            raise DeadlineError("the request's deadline passed before it arrived")
        deadline_s = now_s + min(time_left_s, MAX_TIME_LEFT_S)
    return EngineRequest(
        key=key,
        request_id=start.request_id,
        model=_required_model(start.model),
        prompt=prompt_of(start, may_bring_template=may_bring_template),
        sampling_fields=sampling_fields(start.sampling),
        deadline_s=deadline_s,
        priority=start.priority,
        credit_tokens=credit_tokens,
        echo=start.echo,
        output_so_far=_outputs_so_far(start.output_so_far),
    )


def prompt_of(
    request: worker_pb2.Start | worker_pb2.TokenizeRequest | worker_pb2.CountTokensRequest,
    *,
    may_bring_template: bool,
) -> Prompt:
    """The prompt of any message that has one.

    Raises:
        InvalidRequestError, UnsupportedError: it is missing or wrong.
    """
    kind = request.WhichOneof("prompt")
    if kind == "text":
        return request.text
    if kind == "chat":
        return chat_prompt(request.chat, may_bring_template=may_bring_template)
    if isinstance(request, worker_pb2.Start) and kind == "token_ids":
        return tuple(request.token_ids.values)
    raise InvalidRequestError("the request has no prompt", field="prompt")


def sampling_fields(sampling: generation_pb2.SamplingParameters) -> dict[str, Any]:
    """The fields that the client set, by their names in the proto."""
    fields: dict[str, Any] = {}
    for descriptor, value in sampling.ListFields():
        if descriptor.name == "logit_bias":
            fields[descriptor.name] = dict(value)
        elif descriptor.name == "constraint":
            fields[descriptor.name] = _form(value)
        elif descriptor.is_repeated:
            fields[descriptor.name] = tuple(value)
        else:
            fields[descriptor.name] = value
    return fields


def _form(constraint: generation_pb2.Constraint) -> Form:
    match constraint.WhichOneof("form"):
        case "json_object":
            return Json()
        case "json_schema":
            schema = constraint.json_schema
            return Json(schema.schema, strict=schema.strict)
        case "regex":
            return Regex(constraint.regex)
        case "choices":
            return OneOf(tuple(map(Literal, constraint.choices.values)))
        case "grammar":
            return Grammar(constraint.grammar)
    raise InvalidRequestError("the constraint names no form", field=CONSTRAINT_FIELD)


def _required_model(model: str) -> str:
    if not model:
        raise InvalidRequestError("the request names no model", field="model")
    return model


def _outputs_so_far(outputs: Iterable[worker_pb2.OutputSoFar]) -> dict[int, OutputSoFar]:
    translated: dict[int, OutputSoFar] = {}
    for each in outputs:
        if each.choice_index in translated:
            raise InvalidRequestError(
                f"choice {each.choice_index} comes twice", field="output_so_far.choice_index"
            )
        if each.next_number > MAX_NEXT_NUMBER:
            raise InvalidRequestError(
                f"next_number is {each.next_number}; it must be {MAX_NEXT_NUMBER} or less",
                field="output_so_far.next_number",
            )
        translated[each.choice_index] = OutputSoFar(
            tuple(each.token_ids), each.next_number, each.delivered_bytes, each.reasoning_tokens
        )
    return translated
