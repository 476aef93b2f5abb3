"""The forms that a client can ask of an output, in OpenAI's spelling and in vLLM's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf import struct_pb2

from services.gateway.openai.json_fields import (
    JsonObject,
    missing,
    not_offered,
    not_one_of,
    plain,
    with_integers,
)
from services.gateway.openai.spelling import RESPONSE_FORMAT
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1.generation_pb2 import Constraint
from tokenmesh.openai.v1 import chat_pb2, completion_pb2

Request: TypeAlias = chat_pb2.CreateChatCompletionRequest | completion_pb2.CreateCompletionRequest

_FORMATS = ("text", "json_object", "json_schema")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
STRUCTURED_OUTPUTS = ("json", "regex", "choice", "grammar", "json_object")


def read_constraint(request: Request) -> Constraint | None:
    """The one form that a request asks for; None for free text.

    Raises:
        InvalidRequestError: a form is malformed, or several are asked for.
    """
    asked = {name: constraint for name, constraint in _asked(request) if constraint is not None}
    if len(asked) > 1:
        raise InvalidRequestError(
            f"Only one of {', '.join(repr(name) for name in asked)} can be used at a time.",
            field=list(asked)[1],
        )
    return next(iter(asked.values()), None)


def constraint_field(request: Request) -> str:
    """The field by which a request limits its output, for errors."""
    for name in ("guided_json", "guided_regex", "guided_grammar"):
        if request.HasField(name):
            return name
    if request.guided_choice:
        return "guided_choice"
    asked = plain(request.structured_outputs)
    if isinstance(asked, dict):
        for name in STRUCTURED_OUTPUTS:
            if asked.get(name) is not None:
                return f"structured_outputs.{name}"
    # Calls that are forced hold an output to a form, too. Completions have no tools.
    has_tools = bool(getattr(request, "tools", ())) and not request.HasField("response_format")
    return "tools" if has_tools else RESPONSE_FORMAT


def _asked(request: Request) -> Iterator[tuple[str, Constraint | None]]:
    if request.HasField("response_format"):
        yield "response_format", _response_format(request.response_format)
    if request.HasField("guided_json"):
        yield "guided_json", _guided_json(request.guided_json)
    if request.HasField("guided_regex"):
        yield "guided_regex", Constraint(regex=request.guided_regex)
    yield "guided_choice", _choices(list(request.guided_choice))
    if request.HasField("guided_grammar"):
        yield "guided_grammar", Constraint(grammar=request.guided_grammar)
    if request.HasField("structured_outputs"):
        yield "structured_outputs", _structured_outputs(request.structured_outputs)


def _response_format(value: struct_pb2.Value) -> Constraint | None:
    plain_value = plain(value)
    if plain_value is None:
        return None
    asked = JsonObject("response_format", plain_value)
    kind = asked.required_string("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint(json_object=Constraint.JsonObject())
    if kind == "json_schema":
        schema = asked.required_object("json_schema")
        if schema["schema"] is None:
            raise missing(schema.path_of("schema"))
        name = schema.required_string("name")
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"Invalid '{schema.path_of('name')}': expected 1 to 64 letters, digits, "
                f"underscores or dashes, but got {name!r}.",
                field=schema.path_of("name"),
            )
        return Constraint(
            json_schema=Constraint.JsonSchema(
                name=name,
                schema=schema_text(schema.path_of("schema"), schema["schema"]),
                strict=schema.boolean("strict") or False,
            )
        )
    raise not_one_of("response_format.type", _FORMATS, kind)


def _guided_json(value: struct_pb2.Value) -> Constraint | None:
    schema = plain(value)
    return None if schema is None else _json_schema("guided_json", schema)


def _structured_outputs(value: struct_pb2.Value) -> Constraint | None:
    plain_value = plain(value)
    if plain_value is None:
        return None
    asked = JsonObject("structured_outputs", plain_value)
    if asked["structural_tag"] is not None:
        raise not_offered(asked.path_of("structural_tag"))
    given = [name for name in STRUCTURED_OUTPUTS if asked[name] not in (None, False)]
    if len(given) != 1:
        raise InvalidRequestError(
            f"Invalid 'structured_outputs': expected one of {', '.join(STRUCTURED_OUTPUTS)}, "
            f"but got {' and '.join(given) or 'none of them'}.",
            field="structured_outputs",
        )
    if asked["json"] is not None:
        return _json_schema(asked.path_of("json"), asked["json"])
    regex, grammar = asked.string("regex"), asked.string("grammar")
    if regex is not None:
        return Constraint(regex=regex)
    if grammar is not None:
        return Constraint(grammar=grammar)
    if asked.boolean("json_object"):
        return Constraint(json_object=Constraint.JsonObject())
    return Constraint(choices=Constraint.Choices(values=asked.strings("choice")))


def _choices(values: list[str]) -> Constraint | None:
    return Constraint(choices=Constraint.Choices(values=values)) if values else None


def _json_schema(path: str, schema: Any) -> Constraint:
    text = schema_text(path, schema)
    return Constraint(json_schema=Constraint.JsonSchema(schema=text, strict=True))


def schema_text(path: str, schema: Any) -> str:
    """A schema as JSON text; clients may send it as an object or as such a text.

    Raises:
        InvalidRequestError: it is neither, or no JSON.
    """
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        JsonObject(path, schema)
        text = json.dumps(with_integers(schema), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"Invalid '{path}': no JSON text: {error}.", field=path) from None
    return text
