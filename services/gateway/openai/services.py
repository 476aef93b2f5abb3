"""The gRPC services that Envoy transcodes OpenAI's API to."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from services.gateway.discovery.directory import Directory
from services.gateway.openai.chat.service import ChatCompletions
from services.gateway.openai.completions.service import Completions
from services.gateway.openai.models.service import Models
from services.gateway.relay.relay import Relay
from tokenmesh.openai.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    completion_pb2,
    completion_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)


def add_openai_services(
    server: grpc.aio.Server, relay: Relay, directory: Directory
) -> Sequence[str]:
    """Adds the services to a server, and returns their full names. Envoy's configuration lists them
    too: what is not in both is not served.
    """
    chat_pb2_grpc.add_ChatCompletionServiceServicer_to_server(
        ChatCompletions(relay, directory), server
    )
    completion_pb2_grpc.add_CompletionServiceServicer_to_server(
        Completions(relay, directory), server
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(directory), server)
    return tuple(
        file.services_by_name[name].full_name
        for file, name in (
            (chat_pb2.DESCRIPTOR, "ChatCompletionService"),
            (completion_pb2.DESCRIPTOR, "CompletionService"),
            (model_pb2.DESCRIPTOR, "ModelService"),
        )
    )
