"""ModelService: what the mesh serves, and tokens without generation."""

from __future__ import annotations

from typing import Any

import grpc

from services.gateway.api.deadlines import time_left_s
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery import contract
from services.gateway.discovery.directory import Directory, names_of
from services.gateway.keys.current import allowed_names
from services.gateway.keys.model_access import visible
from services.gateway.requests.validation import check_model_name
from services.mesh.errors import ModelNotFoundError
from tokenmesh.gateway.v1 import model_pb2, model_pb2_grpc
from tokenmesh.worker.v1 import worker_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Answers from the directory, and forwards to workers what only they know."""

    def __init__(self, directory: Directory, tokenizing: Tokenizing) -> None:
        self._directory = directory
        self._tokenizing = tokenizing

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """All models that the caller's key may use, by name."""
        served = visible(self._directory.models(), allowed_names())
        models = [contract.from_served_model(each) for each in served]
        return model_pb2.ListModelsResponse(models=models)

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        """One model, by its name or that of an adapter or alias."""
        check_model_name(request.model)
        found = self._directory.find(request.model)
        shown = visible([] if found is None else [found], allowed_names())
        served = next((each for each in shown if request.model in names_of(each.model)), None)
        if served is None:
            raise ModelNotFoundError(
                f"no model is called {request.model!r}; list the models to see what there is",
                field="model",
            )
        return model_pb2.GetModelResponse(model=contract.from_served_model(served))

    async def Tokenize(
        self, request: model_pb2.TokenizeRequest, context: Context
    ) -> model_pb2.TokenizeResponse:
        """Token ids of a text or a conversation."""
        forwarded = worker_pb2.TokenizeRequest.FromString(request.SerializeToString())
        answer = await self._tokenizing.tokenize(forwarded, time_left_s(context))
        return model_pb2.TokenizeResponse(
            token_ids=answer.token_ids,
            texts=answer.texts,
            context_length_tokens=answer.context_length_tokens,
        )

    async def Detokenize(
        self, request: model_pb2.DetokenizeRequest, context: Context
    ) -> model_pb2.DetokenizeResponse:
        """Text of token ids."""
        forwarded = worker_pb2.DetokenizeRequest.FromString(request.SerializeToString())
        answer = await self._tokenizing.detokenize(forwarded, time_left_s(context))
        return model_pb2.DetokenizeResponse(text=answer.text)

    async def CountTokens(
        self, request: model_pb2.CountTokensRequest, context: Context
    ) -> model_pb2.CountTokensResponse:
        """The number of tokens of a text or a conversation."""
        forwarded = worker_pb2.CountTokensRequest.FromString(request.SerializeToString())
        answer = await self._tokenizing.count(forwarded, time_left_s(context))
        return model_pb2.CountTokensResponse(
            prompt_tokens=answer.prompt_tokens,
            context_length_tokens=answer.context_length_tokens,
        )
