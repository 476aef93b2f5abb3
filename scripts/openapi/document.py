"""The whole description, from the contract and the additions."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from scripts.openapi.additions import Additions, Json
from scripts.openapi.contract import Contract, Route
from scripts.openapi.schemas import REFERENCE, Schemas
from scripts.proto import ROOT

JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"
ERROR_SCHEMA = "ErrorResponse"
RETRY_AFTER = {429, 503}
REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}


def build_document(contract: Contract, additions: Additions) -> Json:
    """The description as one JSON value."""
    additions.check_names((route.operation for route in contract.routes), contract.messages)
    schemas = Schemas(contract, additions)
    paths: dict[str, Json] = {}
    for route in contract.routes:
        if route.is_served:
            paths.setdefault(route.path, {})[route.verb] = _operation(route, additions, schemas)
    schemas.of_addition(ERROR_SCHEMA)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    document = dict(additions.document)
    info = {**document.pop("info"), "version": project["version"]}
    components = document.pop("components")
    responses = {
        _response_name(status): _error_response(status, error)
        for status, error in sorted(additions.errors.items())
    }
    return {
        "openapi": "3.1.0",
        "info": info,
        **document,
        "paths": dict(sorted(paths.items())),
        "components": {
            **components,
            "responses": responses,
            "schemas": dict(sorted(schemas.components.items())),
        },
    }


def _operation(route: Route, additions: Additions, schemas: Schemas) -> Json:
    addition = additions.operations.get(route.operation)
    if addition is None:
        raise SystemExit(f"openapi: docs/openapi/ says nothing of {route.operation}")
    method = route.operation.partition(".")[2]
    operation_id = method[0].lower() + method[1:] + (f"_{route.number + 1}" if route.number else "")
    operation: Json = {"tags": [addition["tag"]], "operationId": operation_id}
    operation["summary"], _, rest = route.comment.partition(". ")
    operation["summary"] = operation["summary"].rstrip(".")
    if rest or "description" in addition:
        operation["description"] = " ".join(filter(None, (rest, addition.get("description"))))
    in_path = re.findall(r"\{(\w+)\}", route.path)
    parameters = [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": is_required or name in in_path,
            "schema": _parameter_schema(schema),
            **({"description": schema["description"]} if "description" in schema else {}),
        }
        for name, schema, is_required in schemas.fields_of(route.request)
        if name in in_path or not route.has_body
    ]
    if parameters:
        operation["parameters"] = parameters
    fields = {name for name, _, _ in schemas.fields_of(route.request)}
    if route.has_body and not fields <= set(in_path):
        body: Json = {"schema": schemas.of_message(route.request, without=frozenset(in_path))}
        if "examples" in addition:
            body["examples"] = {
                name: {"value": value} for name, value in addition["examples"].items()
            }
        operation["requestBody"] = {"required": True, "content": {JSON_TYPE: body}}
    operation["responses"] = _responses(route, addition, additions, schemas)
    return operation


def _responses(route: Route, addition: Json, additions: Additions, schemas: Schemas) -> Json:
    content: Json = {JSON_TYPE: {"schema": schemas.of_addition(addition["response"])}}
    description = "The answer."
    if "events" in addition:
        event = schemas.of_addition(addition["events"])
        description = "The answer: one JSON body, or with `stream` server-sent events."
        content[EVENTS_TYPE] = {"schema": _event(event, ends_with_done=addition.get("done", True))}
    responses: Json = {
        "200": {"description": description, "headers": REQUEST_ID, "content": content}
    }
    for status, error in sorted(additions.errors.items()):
        if route.has_body or error.get("of") != "body":
            responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(status)}"}
    return responses


def _event(payload: Json, *, ends_with_done: bool) -> Json:
    """The schema of one server-sent event: OpenAPI 3.1 has it describe each of the stream."""
    json_data: Json = {
        "contentMediaType": JSON_TYPE,
        "contentSchema": {"anyOf": [payload, {"$ref": REFERENCE + ERROR_SCHEMA}]},
    }
    data: Json = {"type": "string", "description": "An error is the last event.", **json_data}
    if ends_with_done:
        data = {
            "type": "string",
            "description": "An error, or else `[DONE]`, is the last event.",
            "anyOf": [json_data, {"const": "[DONE]"}],
        }
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": data, "event": {"type": "string"}},
    }


def _parameter_schema(schema: Json) -> Json:
    """Nothing in a URL is null."""
    plain = {key: value for key, value in schema.items() if key != "description"}
    if "anyOf" in plain:
        plain = dict(plain["anyOf"][0])
    kind: Any = plain.get("type")
    if isinstance(kind, list):
        plain["type"] = kind[0]
    if None in plain.get("enum", ()):
        plain["enum"] = [each for each in plain["enum"] if each is not None]
    return plain


def _response_name(status: int) -> str:
    return f"Error{status}"


def _error_response(status: int, error: Json) -> Json:
    headers: Json = dict(REQUEST_ID)
    if status in RETRY_AFTER:
        headers["retry-after"] = {"$ref": "#/components/headers/RetryAfter"}
    schema = {"$ref": REFERENCE + ERROR_SCHEMA}
    return {
        "description": error["means"],
        "headers": headers,
        "content": {JSON_TYPE: {"schema": schema, "example": error["example"]}},
    }
