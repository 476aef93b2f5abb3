"""docs/openapi.yaml against what a mesh does, through real Envoy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import EMBEDDING_MODEL, RERANKING_MODEL, SCRIPTED_MODEL
from tests.openapi import (
    Json,
    close_answers,
    operations,
    read_description,
    trim_requests,
    validator,
)

# Three meshes are started in its course.
pytestmark = pytest.mark.timeout(300)

LIMIT_S = 60.0
EXAMPLES = 10
FIELDS_AT_ONCE = 4
EXAMPLES_OF_FEW_FIELDS = 2
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
FEW = {"max_tokens": 8, "max_completion_tokens": 8, "max_output_tokens": 16, "n": 3, "best_of": 3}
ANY_TOKEN_ID = 2**32 - 1
STREAMED = 0
"""Counts streams beside the statuses."""
LAST_TYPES = {"response.completed", "response.incomplete", "response.failed", "error"}
EVENTS_TYPE = "text/event-stream"
CALLS = [(path, verb) for path, verb, _ in operations(read_description())]
CALLS_WITH_INPUT = [
    (path, verb)
    for path, verb, operation in operations(read_description())
    # A further path of a call has a number in its id.
    if "_" not in operation["operationId"]
    and (
        "requestBody" in operation
        or any(parameter["in"] == "query" for parameter in operation.get("parameters", ()))
    )
]


@pytest.fixture
def served(request: pytest.FixtureRequest, path: str) -> tuple[MeshNotice, str]:
    """A mesh that serves what a path is for, and the model to ask."""
    if path.endswith("/embeddings"):
        return request.getfixturevalue("encoder_mesh"), EMBEDDING_MODEL
    if path.endswith(("/rerank", "/score")):
        return request.getfixturevalue("encoder_mesh"), RERANKING_MODEL
    return request.getfixturevalue("mesh"), SCRIPTED_MODEL


def narrowed(mesh: MeshNotice, model: str, path: str) -> Json:
    """The description, with answers as strict as may be, and requests that are answered quickly."""
    description = read_description()
    close_answers(description)
    trim_requests(description)
    for operation in description["paths"][path].values():
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "model":
                parameter["schema"] = {"enum": [SCRIPTED_MODEL, "nobody"]}
            if parameter["name"] == "response_id":
                parameter["schema"] = {"enum": [stored_response(mesh), "resp_nobody"]}
    for schema in description["components"]["schemas"].values():
        # Those with an `object` are answers.
        if "object" not in schema.get("properties", {"object"}):
            narrow(schema["properties"], model)
    narrow_token_ids(description["components"]["schemas"])
    return description


def stored_response(mesh: MeshNotice) -> str:
    """The id of a response, which is kept with its events."""
    asked = {"model": SCRIPTED_MODEL, "input": "Hello", "background": True, "stream": True}
    answer = httpx.post(f"{mesh.base_url}/responses", json=asked, timeout=LIMIT_S)
    created = json.loads(answer.text.partition("data: ")[2].partition("\n")[0])
    return str(created["response"]["id"])


def narrow(properties: Json, model: str) -> None:
    """Asks for a model that is there, and for little of it."""
    if "model" in properties:
        properties["model"] = {"enum": [model]}
    for name, maximum in FEW.items():
        if name in properties:
            properties[name]["maximum"] = maximum


def narrow_token_ids(node: Any) -> None:
    """To those that every vocabulary has."""
    if isinstance(node, dict):
        if node.get("maximum") == ANY_TOKEN_ID:
            node["maximum"] = 100
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            narrow_token_ids(each)


def with_few_fields(mesh: MeshNotice, model: str, path: str, verb: str) -> Iterator[Json]:
    """The description, several times, each time with a few of the fields that a call may leave out:
    many exclude each other, so that with all of them at once nothing would ever be answered.
    """
    description = narrowed(mesh, model, path)
    body = description["paths"][path][verb].get("requestBody")
    if body is None:
        yield description
        return
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = description["components"]["schemas"][name]
    properties = schema["properties"]
    alternatives = [name for each in schema.get("oneOf", ()) for name in each["required"]]
    required = set(schema.get("required", ()))
    always = {*required, *alternatives, "stream"}
    optional = sorted(properties.keys() - always)
    for start in range(0, max(1, len(optional)), FIELDS_AT_ONCE):
        kept = always.union(optional[start : start + FIELDS_AT_ONCE])
        schema["properties"] = {field: properties[field] for field in properties if field in kept}
        if "stream" in properties:
            schema["required"] = [*sorted(required), "stream"]
            properties["stream"] = {"const": start // FIELDS_AT_ONCE % 2 == 0}
        yield description


def has_ended(stream: str) -> bool:
    """Whether the last event is one that nothing may follow."""
    last = stream.removesuffix("\n\n").rpartition("\n\n")[2].rpartition("data: ")[2]
    if last == "[DONE]":
        return True
    payload = json.loads(last)
    return "error" in payload or payload.get("type") in LAST_TYPES


def can_stream(path: str, verb: str) -> bool:
    """Whether a request may ask in its body for a stream of events."""
    operation = read_description()["paths"][path][verb]
    return "requestBody" in operation and EVENTS_TYPE in operation["responses"]["200"]["content"]


def ask_and_check(
    mesh: MeshNotice, description: Json, path: str, verb: str, mode: GenerationMode, examples: int
) -> Counter[int]:
    """How many answers had which status."""
    operation = schemathesis.openapi.from_dict(description)[path][verb.upper()]
    statuses: Counter[int] = Counter()
    with requests.Session() as session:

        @settings(BOUNDED, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            # Schemathesis by itself would read no more than the first events of a stream.
            url = f"http://{mesh.grpc_address}"
            response = session.request(**case.as_transport_kwargs(base_url=url), timeout=LIMIT_S)
            case.validate_response(response, checks=CHECKS)
            if response.headers["content-type"].startswith(EVENTS_TYPE):
                assert has_ended(response.text)
                statuses[STREAMED] += 1
            statuses[response.status_code] += 1

        ask()
    return statuses


@pytest.mark.parametrize(("path", "verb"), CALLS)
def test_what_is_described_is_answered(
    served: tuple[MeshNotice, str], path: str, verb: str
) -> None:
    mesh, model = served
    statuses: Counter[int] = Counter()
    for description in with_few_fields(mesh, model, path, verb):
        statuses += ask_and_check(
            mesh, description, path, verb, GenerationMode.POSITIVE, EXAMPLES_OF_FEW_FIELDS
        )
    # A response that has ended cannot be cancelled.
    assert statuses[200] or path.endswith("/cancel")
    assert statuses[STREAMED] or not can_stream(path, verb)


@pytest.mark.parametrize(("path", "verb"), CALLS_WITH_INPUT)
def test_what_is_not_described_is_refused_as_described(
    served: tuple[MeshNotice, str], path: str, verb: str
) -> None:
    mesh, model = served
    statuses = ask_and_check(
        mesh, narrowed(mesh, model, path), path, verb, GenerationMode.NEGATIVE, EXAMPLES
    )
    assert any(status >= 400 for status in statuses)


def test_a_response_is_cancelled_as_described(endless_mesh: MeshNotice) -> None:
    asked = {"model": SCRIPTED_MODEL, "input": "Hello", "background": True}
    url = f"{endless_mesh.base_url}/responses"
    created = httpx.post(url, json=asked, timeout=LIMIT_S).json()
    answer = httpx.post(f"{url}/{created['id']}/cancel", timeout=LIMIT_S)
    assert answer.status_code == 200
    description = read_description()
    close_answers(description)
    for body in (created, answer.json()):
        validator(description, {"$ref": "#/components/schemas/Response"}).validate(body)
    assert answer.json()["status"] == "cancelled"


def test_the_examples_work(demo_mesh: MeshNotice, encoder_mesh: MeshNotice) -> None:
    description = read_description()
    close_answers(description)
    for path, verb, operation in operations(description):
        content: dict[str, Any] = operation["responses"]["200"]["content"]
        for body in operation.get("requestBody", {}).get("content", {}).values():
            for name, example in body["examples"].items():
                is_for_encoders = operation["tags"] == ["Embeddings"]
                address = (encoder_mesh if is_for_encoders else demo_mesh).grpc_address
                url = f"http://{address}{path}"
                answer = httpx.request(verb, url, json=example["value"], timeout=LIMIT_S)
                assert answer.status_code == 200, (path, name, answer.text)
                kind = answer.headers["content-type"].partition(";")[0]
                if kind == "application/json":
                    validator(description, content[kind]["schema"]).validate(answer.json())
