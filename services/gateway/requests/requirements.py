"""What a request needs of the model that it asks for."""

from __future__ import annotations

from services.gateway.discovery.fleet import Model
from services.mesh.errors import InvalidRequestError, UnsupportedError
from tokenmesh.mesh.v1 import chat_pb2
from tokenmesh.worker.v1 import worker_pb2

CAPABILITY_MISSING = "CAPABILITY_MISSING"
TEXT = "TEXT"

_ENCODING = frozenset({"EMBED", "SCORE"})
_PART_MODALITIES = {"image": "IMAGE", "audio": "AUDIO", "file": "FILE"}


def check(start: worker_pb2.Start, model: Model) -> None:
    """Checks that the model can do what the request asks.

    Raises:
        InvalidRequestError: it cannot; the reason is CAPABILITY_MISSING.
    """
    if start.WhichOneof("prompt") == "chat":
        _check_chat(start.chat, model)
    else:
        _require(model, "COMPLETE", "model", _continues_nothing(model))
    if start.sampling.HasField("constraint"):
        _require(
            model, "CONSTRAINED_DECODING", "sampling.constraint", "cannot constrain its output"
        )


def check_encoding(model: Model, capability: str) -> None:
    """Checks that the model embeds ("EMBED"), or scores ("SCORE").

    Raises:
        UnsupportedError: it does not.
    """
    if capability not in model.capabilities:
        what = "embeds no texts" if capability == "EMBED" else "scores no documents"
        raise UnsupportedError(f"the model {model.name!r} {what}", field="model")


def _check_chat(prompt: chat_pb2.ChatPrompt, model: Model) -> None:
    has_none = "has no chat template: use plain completion"
    can_complete = "COMPLETE" in model.capabilities
    _require(model, "CHAT", "model", has_none if can_complete else _continues_nothing(model))
    _check_tools(prompt, model)
    for number, message in enumerate(prompt.messages):
        for position, part in enumerate(message.content):
            modality = _PART_MODALITIES.get(part.WhichOneof("part") or "")
            if modality is not None and modality not in model.input_modalities:
                raise _missing(
                    model,
                    f"prompt.messages[{number}].content[{position}]",
                    f"takes no {modality.lower()} parts, only "
                    + ", ".join(sorted(m.lower() for m in model.input_modalities | {TEXT})),
                )


def _check_tools(prompt: chat_pb2.ChatPrompt, model: Model) -> None:
    choice = prompt.tool_choice
    if not prompt.tools or choice.mode == chat_pb2.TOOL_CHOICE_MODE_NONE:
        return
    _require(model, "TOOLS", "prompt.tools", "calls no tools")
    if choice.name or choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED:
        _require(
            model,
            "CONSTRAINED_DECODING",
            "prompt.tool_choice",
            "cannot be made to call tools on its workers: leave it to auto or none",
        )
    for index, tool in enumerate(prompt.tools):
        if tool.strict:
            _require(
                model,
                "CONSTRAINED_DECODING",
                f"prompt.tools[{index}].strict",
                "cannot be held to a schema on its workers: leave it out",
            )


def _continues_nothing(model: Model) -> str:
    if model.capabilities.isdisjoint(_ENCODING):
        return "continues no plain text: send a conversation"
    return "generates no text: it embeds, or scores documents"


def _require(model: Model, capability: str, field: str, what: str) -> None:
    if capability not in model.capabilities:
        raise _missing(model, field, what)


def _missing(model: Model, field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field}: the model {model.name!r} {what}", reason=CAPABILITY_MISSING, field=field
    )
