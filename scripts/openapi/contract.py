"""What the protos say of the REST API: its routes and its messages, with their comments."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from scripts.proto import PROTO, ROOT, google_protos, well_known_protos

PACKAGE = "tokenmesh.openai.v1"
ENVOY = ROOT / "deploy" / "envoy" / "envoy.yaml"
VERBS = ("get", "put", "post", "delete", "patch")

Comments: TypeAlias = Mapping[tuple[int, ...], str]
"""By the path of what they stand before, as google.protobuf.SourceCodeInfo counts."""

# Field numbers of FileDescriptorProto, DescriptorProto and ServiceDescriptorProto.
MESSAGE_TYPE, SERVICE, FIELD, NESTED_TYPE, METHOD = 4, 6, 2, 3, 2


@dataclass(frozen=True)
class Message:
    """A message of the package. `comments` has one for each field."""

    name: str
    """Within the package, such as "CheckTokensRequest.Prompt"."""
    fields: tuple[descriptor_pb2.FieldDescriptorProto, ...]
    comment: str
    comments: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """One binding of a method."""

    verb: str
    path: str
    operation: str
    """The method, such as "ModelService.ListModels"."""
    comment: str
    request: str
    """Name of the request message."""
    has_body: bool
    number: int
    """0 for the method's first binding."""
    is_served: bool
    """Whether Envoy transcodes to the service."""


@dataclass
class Contract:
    """All messages by name, and all routes."""

    messages: dict[str, Message] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)


def read_contract() -> Contract:
    """The package as it stands in proto/."""
    contract = Contract()
    served = served_services()
    for file in _descriptors().file:
        comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            _add_message(contract, message.name, message, (MESSAGE_TYPE, index), comments)
        for index, service in enumerate(file.service):
            is_served = f"{PACKAGE}.{service.name}" in served
            for route in _routes(service, (SERVICE, index), comments, is_served=is_served):
                contract.routes.append(route)
    return contract


def served_services() -> set[str]:
    """The full names of the services that Envoy transcodes to."""
    text = re.sub(r"\$\{\w+\}", "1", ENVOY.read_text())
    return set(_listed_services(yaml.safe_load(text)))


def _listed_services(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "services":
                yield from value
            else:
                yield from _listed_services(value)
    elif isinstance(node, list):
        for each in node:
            yield from _listed_services(each)


def _descriptors() -> descriptor_pb2.FileDescriptorSet:
    files = sorted((PROTO / PACKAGE.replace(".", "/")).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.pb"
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                *(f"--proto_path={path}" for path in (PROTO, google_protos(), well_known_protos())),
                "--include_source_info",
                f"--descriptor_set_out={target}",
                *(str(file.relative_to(PROTO)) for file in files),
            ],
            check=True,
        )
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


def _add_message(
    contract: Contract,
    name: str,
    message: descriptor_pb2.DescriptorProto,
    path: tuple[int, ...],
    comments: Comments,
) -> None:
    contract.messages[name] = Message(
        name=name,
        fields=tuple(message.field),
        comment=comments.get(path, ""),
        comments=tuple(comments.get((*path, FIELD, i), "") for i in range(len(message.field))),
    )
    for index, nested in enumerate(message.nested_type):
        nested_path = (*path, NESTED_TYPE, index)
        _add_message(contract, f"{name}.{nested.name}", nested, nested_path, comments)


def _routes(
    service: descriptor_pb2.ServiceDescriptorProto,
    path: tuple[int, ...],
    comments: Comments,
    *,
    is_served: bool,
) -> Iterator[Route]:
    for index, method in enumerate(service.method):
        rule = method.options.Extensions[annotations_pb2.http]
        for number, binding in enumerate((rule, *rule.additional_bindings)):
            verb = binding.WhichOneof("pattern")
            if verb not in VERBS:
                raise SystemExit(f"openapi: {method.name} is bound to {verb}, not to an HTTP verb")
            yield Route(
                verb=verb,
                path=re.sub(r"\{(\w+)=[^}]*\}", r"{\1}", getattr(binding, verb)),
                operation=f"{service.name}.{method.name}",
                comment=comments.get((*path, METHOD, index), ""),
                request=within_package(method.input_type),
                has_body=binding.body == "*",
                number=number,
                is_served=is_served,
            )


def within_package(full_name: str) -> str:
    """A message's name without the package's."""
    return full_name.removeprefix(f".{PACKAGE}.")
