"""docs/openapi.yaml is what the protos and Envoy's configuration say, and right in itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from jsonschema import Draft202012Validator

from services.gateway.requests.sampling_ranges import RANGES, Range
from tests.openapi import Json, operations, read_description, validator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "tokenmesh.openai.v1"
SPELLED_OTHERWISE = {"choices": "n"}


@pytest.fixture(scope="module")
def description() -> Json:
    return read_description()


def test_the_file_is_what_the_protos_say() -> None:
    subprocess.run([sys.executable, "-m", "scripts.openapi", "--check"], cwd=ROOT, check=True)


def test_every_route_of_envoy_is_described(description: Json) -> None:
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "gen" / "envoy" / "tokenmesh.pb").read_bytes()
    )
    configuration = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()
    routes = set()
    for file in descriptors.file:
        for service in file.service:
            if f"- {file.package}.{service.name}\n" in configuration and file.package == PACKAGE:
                for method in service.method:
                    rule = method.options.Extensions[annotations_pb2.http]
                    for binding in (rule, *rule.additional_bindings):
                        verb = binding.WhichOneof("pattern")
                        path = re.sub(r"=[^}]*", "", getattr(binding, verb or ""))
                        routes.add((path, verb))
    assert routes
    assert {(path, verb) for path, verb, _ in operations(description)} == routes


def test_the_schemas_are_valid(description: Json) -> None:
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = {f"#/components/{kind}/{name}" for kind, name in _components(description)}
    assert set(_references(description)) <= names
    unused = names - set(_references(description))
    assert unused == {"#/components/securitySchemes/bearer"}


def _components(description: Json) -> Iterator[tuple[str, str]]:
    for kind, content in description["components"].items():
        for name in content:
            yield kind, name


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def test_the_examples_are_of_their_schemas(description: Json) -> None:
    checked = 0
    for _, _, operation in operations(description):
        for body in operation.get("requestBody", {}).get("content", {}).values():
            for example in body["examples"].values():
                validator(description, body["schema"]).validate(example["value"])
                checked += 1
    for response in description["components"]["responses"].values():
        content = response["content"]["application/json"]
        validator(description, content["schema"]).validate(content["example"])
        checked += 1
    assert checked


@pytest.mark.parametrize("message", ["CreateChatCompletionRequest", "CreateCompletionRequest"])
def test_the_ranges_are_those_that_the_gateway_checks(description: Json, message: str) -> None:
    properties = description["components"]["schemas"][message]["properties"]
    compared = set()
    for name, allowed in RANGES.items():
        schema = properties.get(SPELLED_OTHERWISE.get(name, name))
        if schema is not None:
            assert _range(schema, allowed) == allowed, name
            compared.add(name)
    assert {"temperature", "top_p", "top_k", "min_p", "choices", "max_tokens"} <= compared


def _range(schema: Json, allowed: Range) -> Range:
    """The range of a schema; where the gateway has no upper bound, the type's own is none."""
    low = schema.get("exclusiveMinimum", schema.get("minimum"))
    high = allowed.high if allowed.high == float("inf") else schema.get("maximum")
    assert low is not None
    assert high is not None
    return Range(low, high, excludes_low="exclusiveMinimum" in schema)
