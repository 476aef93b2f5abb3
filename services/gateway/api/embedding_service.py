"""EmbeddingService: no engine embeds or scores, and clients are told so."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from services.gateway.discovery.directory import Directory
from services.gateway.requests.validation import check_model_name
from services.mesh.errors import UnsupportedError
from tokenmesh.gateway.v1 import embedding_pb2, embedding_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Refuses what no model can do."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Context) -> NoReturn:
        """Raises UnsupportedError for a model that is served, ModelNotFoundError for others."""
        self._refuse(request.model, "embeds no texts")

    async def Score(self, request: embedding_pb2.ScoreRequest, context: Context) -> NoReturn:
        """Raises UnsupportedError for a model that is served, ModelNotFoundError for others."""
        self._refuse(request.model, "scores no documents")

    def _refuse(self, model: str, what: str) -> NoReturn:
        check_model_name(model)
        resolution = self._directory.resolve(model)
        raise UnsupportedError(f"the model {resolution.name!r} {what}", field="model")
