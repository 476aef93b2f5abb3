"""The gRPC services that Envoy transcodes OpenAI's API to."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery.directory import Directory
from services.gateway.openai.chat.service import ChatCompletions
from services.gateway.openai.completions.service import Completions
from services.gateway.openai.embeddings.service import Embeddings
from services.gateway.openai.models.service import Models
from services.gateway.openai.registration import add_service
from services.gateway.openai.responses.service import Responses
from services.gateway.openai.tokenization.service import Tokenization
from services.gateway.relay.encode_relay import EncodeRelay
from services.gateway.relay.relay import Relay
from tokenmesh.openai.v1 import (
    chat_pb2,
    completion_pb2,
    embedding_pb2,
    model_pb2,
    response_pb2,
    tokenization_pb2,
)


def add_openai_services(
    server: grpc.aio.Server,
    relay: Relay,
    directory: Directory,
    tokenizing: Tokenizing,
    responses: Responses,
    *,
    encode_relay: EncodeRelay,
) -> Sequence[str]:
    """Adds the services to a server, and returns their full names. Envoy's configuration lists them
    too: what is not in both is not served.
    """
    servicers = (
        (chat_pb2, "ChatCompletionService", ChatCompletions(relay, directory, tokenizing)),
        (completion_pb2, "CompletionService", Completions(relay, directory, tokenizing)),
        (embedding_pb2, "EmbeddingService", Embeddings(encode_relay)),
        (model_pb2, "ModelService", Models(directory)),
        (response_pb2, "ResponseService", responses),
        (tokenization_pb2, "TokenizationService", Tokenization(tokenizing)),
    )
    return tuple(
        add_service(server, file.DESCRIPTOR.services_by_name[name], servicer)
        for file, name, servicer in servicers
    )
