"""What a tool such as grpcurl does, which has no protos: it asks the mesh for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL

LIMIT_S = 30.0
GATEWAY = "tokenmesh.gateway.v1"


@pytest.fixture
def channel(mesh: MeshNotice) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(mesh.grpc_address) as opened:
        yield opened


@pytest.fixture
def listed(channel: grpc.Channel) -> dict[str, ServiceDescriptor]:
    """The services that the mesh lists, described by itself alone."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    return {name: pool.FindServiceByName(name) for name in database.get_services()}


def test_clients_see_what_is_theirs(listed: dict[str, ServiceDescriptor]) -> None:
    assert set(listed) == {
        f"{GATEWAY}.ChatService",
        f"{GATEWAY}.CompletionService",
        f"{GATEWAY}.EmbeddingService",
        f"{GATEWAY}.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    chat = listed[f"{GATEWAY}.ChatService"].methods_by_name["Chat"]
    fields = chat.input_type.fields_by_name
    assert {"model", "prompt", "sampling"} <= set(fields)
    prompt = fields["prompt"].message_type
    assert prompt is not None
    assert prompt.full_name == "tokenmesh.mesh.v1.ChatPrompt"
    assert "messages" in prompt.fields_by_name


def test_every_method_of_the_gateway_can_be_called(
    channel: grpc.Channel, listed: dict[str, ServiceDescriptor]
) -> None:
    answered = {
        f"{service.name}.{method.name}": code_of(channel, f"/{service.full_name}/{method.name}")
        for service in listed.values()
        if service.full_name.startswith(f"{GATEWAY}.")
        for method in service.methods
    }
    refused = grpc.StatusCode.INVALID_ARGUMENT
    assert answered == {
        "ChatService.Chat": refused,
        "ChatService.Converse": grpc.StatusCode.FAILED_PRECONDITION,
        "CompletionService.Complete": refused,
        "EmbeddingService.Embed": refused,
        "EmbeddingService.Score": refused,
        "ModelService.ListModels": None,
        "ModelService.GetModel": refused,
        "ModelService.Tokenize": refused,
        "ModelService.Detokenize": refused,
        "ModelService.CountTokens": refused,
    }


def code_of(channel: grpc.Channel, path: str) -> grpc.StatusCode | None:
    """With what a call of an empty message fails; None where it is answered. On the wire, one
    message looks the same whether the call streams or not.
    """
    call: Any = channel.stream_stream(path)
    answers = call(iter([b""]), timeout=LIMIT_S)
    try:
        next(answers)
    except grpc.RpcError:
        code: grpc.StatusCode = answers.code()
        return code
    finally:
        answers.cancel()
    return None


def test_a_chat_is_called_by_what_reflection_tells(
    channel: grpc.Channel, listed: dict[str, ServiceDescriptor]
) -> None:
    chat = listed[f"{GATEWAY}.ChatService"].methods_by_name["Chat"]
    request = json_format.ParseDict(
        {
            "model": SCRIPTED_MODEL,
            "prompt": {"messages": [{"role": "ROLE_USER", "content": [{"text": "Hello"}]}]},
            "sampling": {"maxTokens": 3},
        },
        message_factory.GetMessageClass(chat.input_type)(),
    )
    read = message_factory.GetMessageClass(chat.output_type).FromString
    call: Any = channel.unary_stream(f"/{GATEWAY}.ChatService/Chat", None, read)
    answers = call(request.SerializeToString(), timeout=LIMIT_S)
    events = [answer.WhichOneof("event") for answer in answers]
    assert events[0] == "started"
    assert events[-1] == "completed"
