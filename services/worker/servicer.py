"""WorkerService: what a worker does for gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from services.mesh.errors import MeshError, UnavailableError
from services.worker.attach.identity import Identity
from services.worker.encode.encode_calls import EncodeCalls
from services.worker.generate.generate_stream import RETRY_AFTER_S, GenerateStream, Serving
from services.worker.translation.models import models_of
from services.worker.translation.requests import prompt_of
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

Context = Any


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers gateways from one engine."""

    def __init__(self, serving: Serving, identity: Callable[[], Identity]) -> None:
        """`identity` is asked once calls come: an address is known when its port is taken."""
        self._serving = serving
        self._identity = identity
        self._encode_calls = EncodeCalls(serving)
        self._streams: set[GenerateStream] = set()
        serving.state.watch(self._tell_state)
        self._closed: MeshError | None = None

    def close_streams(self) -> None:
        """Ends every stream, and those that come: the worker is stopping."""
        self._closed = UnavailableError("the worker is stopping", retry_after_s=RETRY_AFTER_S)
        for stream in list(self._streams):
            stream.close(self._closed)

    def _tell_state(self) -> None:
        for stream in self._streams:
            stream.tell_state()

    async def Generate(
        self,
        request_iterator: AsyncIterator[worker_pb2.GenerateRequest],
        context: Context,
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Serves one gateway's stream."""
        if self._closed is not None:
            raise self._closed
        stream = GenerateStream(self._serving)
        # A cancelled call may leave this generator suspended where it yields; the engine must not
        # go on until the garbage collector finds it.
        context.add_done_callback(lambda _: stream.abandon())
        self._streams.add(stream)
        if self._serving.state.is_draining:
            stream.tell_state()
        try:
            async for response in stream.responses(request_iterator):
                yield response
        finally:
            stream.abandon()
            self._streams.discard(stream)

    async def Embed(
        self, request: worker_pb2.EmbedRequest, context: Context
    ) -> worker_pb2.EmbedResponse:
        """Vectors of texts."""
        return await self._encode_calls.embed(request, context)

    async def Score(
        self, request: worker_pb2.ScoreRequest, context: Context
    ) -> worker_pb2.ScoreResponse:
        """Scores of pairs of texts."""
        return await self._encode_calls.score(request, context)

    async def Tokenize(
        self, request: worker_pb2.TokenizeRequest, context: Context
    ) -> worker_pb2.TokenizeResponse:
        """Token ids of a text or a conversation, and their texts where asked for."""
        engine = self._serving.engine
        adds = request.add_special_tokens if request.HasField("add_special_tokens") else True
        token_ids = await engine.tokenize(
            request.model, self._prompt_of(request), add_special_tokens=adds
        )
        response = worker_pb2.TokenizeResponse(
            token_ids=token_ids, context_length_tokens=self._context_length_tokens(request.model)
        )
        if request.with_texts:
            for token_id in token_ids:
                response.texts.append(
                    await engine.detokenize(request.model, [token_id], skip_special_tokens=False)
                )
        return response

    async def Detokenize(
        self, request: worker_pb2.DetokenizeRequest, context: Context
    ) -> worker_pb2.DetokenizeResponse:
        """Text of token ids."""
        skips = request.skip_special_tokens if request.HasField("skip_special_tokens") else True
        text = await self._serving.engine.detokenize(
            request.model, list(request.token_ids), skip_special_tokens=skips
        )
        return worker_pb2.DetokenizeResponse(text=text)

    async def CountTokens(
        self, request: worker_pb2.CountTokensRequest, context: Context
    ) -> worker_pb2.CountTokensResponse:
        """Number of a prompt's tokens."""
        token_ids = await self._serving.engine.tokenize(
            request.model, self._prompt_of(request), add_special_tokens=True
        )
        return worker_pb2.CountTokensResponse(
            prompt_tokens=len(token_ids),
            context_length_tokens=self._context_length_tokens(request.model),
        )

    async def DescribeModels(
        self, request: worker_pb2.DescribeModelsRequest, context: Context
    ) -> worker_pb2.DescribeModelsResponse:
        """The models, and which run of which worker serves them."""
        identity = self._identity()
        return worker_pb2.DescribeModelsResponse(
            worker_id=identity.worker_id,
            incarnation=identity.incarnation,
            models=models_of(self._serving.engine),
        )

    def _prompt_of(
        self, request: worker_pb2.TokenizeRequest | worker_pb2.CountTokensRequest
    ) -> Any:
        return prompt_of(request, may_bring_template=self._serving.may_bring_template)

    def _context_length_tokens(self, model: str) -> int:
        return next(
            each.context_length_tokens
            for each in self._serving.engine.models
            if model == each.name or model in each.aliases
        )
