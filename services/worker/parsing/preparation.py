"""Decides whether a request's output is parsed, and asks the engine for what that takes."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from services.mesh.errors import UnsupportedError
from services.worker.chat_formats.base import ChatFormat, ToolUse
from services.worker.engines.base import (
    ChatPrompt,
    Engine,
    EngineRequest,
    ModelDescription,
    OutputSoFar,
)
from services.worker.engines.sampling import MAX_CHOICES
from services.worker.parsing.continuation import parser_of
from services.worker.parsing.request_parsing import RequestParsing


async def prepare(
    engine: Engine, request: EngineRequest, tool_use: ToolUse
) -> tuple[EngineRequest, RequestParsing | None]:
    """The request as the engine is to get it, and what parses its output; None where nothing is to
    be parsed.

    Raises:
        InvalidRequestError, UnsupportedError: the conversation cannot be rendered, or the model
            cannot be made to call tools.
        ModelNotFoundError: the engine does not serve the model.
    """
    prompt = request.prompt
    model = _described(engine, request.model)
    if model is None or not isinstance(prompt, ChatPrompt):
        return request, None
    chat_format = model.chat_format
    _check(tool_use, model, chat_format)
    if chat_format is None or not (
        chat_format.can_reason or (chat_format.can_call and tool_use.tools)
    ):
        return request, None
    text = await engine.render(request.model, prompt)
    fields = dict(request.sampling_fields)
    if "CONSTRAINED_DECODING" in model.capabilities:
        form = chat_format.form(text, tool_use, fields.get("constraint"))
        if form is not None:
            fields["constraint"] = form
    parsing = RequestParsing(
        # The engine refuses what is out of range.
        min(max(1, fields.get("choices", 1)), MAX_CHOICES),
        # A parser that may make several calls tells of one too many, which ends the output.
        partial(parser_of, chat_format, prompt, text, replace(tool_use, is_parallel=True)),
        tool_use,
        request_id=request.request_id,
        seed=fields.get("seed", 0),
        output_so_far=request.output_so_far,
        clock=time.monotonic,
    )
    prepared = replace(
        request,
        prompt=replace(prompt, rendered=text),
        sampling_fields=fields,
        visible_markers=chat_format.markers(tool_use),
        output_so_far={
            index: _all_delivered(so_far) for index, so_far in request.output_so_far.items()
        },
    )
    return prepared, parsing


def _described(engine: Engine, name: str) -> ModelDescription | None:
    return next((each for each in engine.models if name in (each.name, *each.aliases)), None)


def _check(tool_use: ToolUse, model: ModelDescription, chat_format: ChatFormat | None) -> None:
    if (
        "CONSTRAINED_DECODING" in model.capabilities
        and chat_format is not None
        and chat_format.can_call
    ):
        return
    if tool_use.is_required:
        raise UnsupportedError(
            f"{model.name!r} cannot be made to call tools here; leave tool_choice to auto or none",
            field="prompt.tool_choice",
        )
    if any(tool.strict for tool in tool_use.tools):
        raise UnsupportedError(
            f"{model.name!r} cannot be held to a tool's schema here; leave strict out",
            field="prompt.tools",
        )


def _all_delivered(so_far: OutputSoFar) -> OutputSoFar:
    """Whoever parses says what of it is with the client, not the engine."""
    return replace(so_far, delivered_bytes=None)
