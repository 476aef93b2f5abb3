"""GET /v1/models and GET /v1/models/{model}."""

from __future__ import annotations

from google.api.httpbody_pb2 import HttpBody

from services.gateway.discovery.directory import Directory, ServedModel
from services.gateway.keys.current import allowed_names
from services.gateway.keys.model_access import visible
from services.gateway.openai.failures import JSON, Context, Failures
from services.gateway.openai.models.listing import model_json, models_json
from services.gateway.openai.spelling import MODEL_SPELLING
from tokenmesh.openai.v1 import model_pb2, model_pb2_grpc


class Models(model_pb2_grpc.ModelServiceServicer):
    """GET /v1/models and GET /v1/models/{model}."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> HttpBody:
        """All names that a client may ask for."""
        return HttpBody(content_type=JSON, data=models_json(self._visible()).encode())

    async def RetrieveModel(
        self, request: model_pb2.RetrieveModelRequest, context: Context
    ) -> HttpBody:
        """One of them."""
        try:
            card = model_json(self._visible(), request.model)
        except Exception as error:
            failures = Failures(context, "RetrieveModel", MODEL_SPELLING, request.model)
            await failures.abort(error)
        return HttpBody(content_type=JSON, data=card.encode())

    def _visible(self) -> list[ServedModel]:
        return list(visible(self._directory.models(), allowed_names()))
