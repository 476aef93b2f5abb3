"""POST /v1/responses/input_tokens: how long a prompt would be."""

from __future__ import annotations

from services.gateway.api.deadlines import time_left_s
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.openai.failures import Context
from services.gateway.openai.json_order import in_order
from services.gateway.openai.responses.preparing import Preparing
from services.gateway.openai.responses.spelling import ResponseSpelling
from tokenmesh.openai.v1 import response_pb2
from tokenmesh.worker.v1 import worker_pb2

_CREATE = in_order(response_pb2.CreateResponseRequest)


class Counting:
    """Counts the tokens of inputs as a worker would read them, with all that they continue."""

    def __init__(self, preparing: Preparing, tokenizing: Tokenizing) -> None:
        self._preparing = preparing
        self._tokenizing = tokenizing

    async def input_tokens(
        self,
        request: response_pb2.CountResponseInputTokensRequest,
        context: Context,
        spelling: ResponseSpelling,
    ) -> str:
        """OpenAI's object that tells it.

        Raises:
            MeshError: as `Preparing.prepare`; or no worker is there to count.
        """
        # The fields have the same numbers in both.
        create = _CREATE.FromString(request.SerializeToString())
        start = (await self._preparing.prepare(create, context, spelling)).start
        counted = await self._tokenizing.count(
            worker_pb2.CountTokensRequest(model=start.model, chat=start.chat),
            time_left_s(context),
        )
        return f'{{"object":"response.input_tokens","input_tokens":{counted.prompt_tokens}}}'
