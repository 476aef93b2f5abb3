"""POST /tokenize, /detokenize and /api/v1/token_check."""

from __future__ import annotations

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.deadlines import time_left_s
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.keys.current import check_model
from services.gateway.openai.failures import JSON, Context, Failures
from services.gateway.openai.json_text import encoded
from services.gateway.openai.spelling import TOKENIZATION_SPELLING
from services.gateway.openai.tokenization.request import (
    read_checks,
    read_detokenize_request,
    read_tokenize_request,
)
from tokenmesh.openai.v1 import tokenization_pb2, tokenization_pb2_grpc
from tokenmesh.worker.v1 import worker_pb2


class Tokenization(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Tokens without generation, as workers of the model tell them."""

    def __init__(self, tokenizing: Tokenizing) -> None:
        self._tokenizing = tokenizing

    async def Tokenize(
        self, request: tokenization_pb2.TokenizeRequest, context: Context
    ) -> HttpBody:
        """Token ids of a text or a conversation."""
        try:
            asked = read_tokenize_request(request)
            answer = await self._tokenizing.tokenize(asked, time_left_s(context))
        except Exception as error:
            await _failures(context, "Tokenize", request.model).abort(error)
        return _body(
            {
                "count": len(answer.token_ids),
                "max_model_len": answer.context_length_tokens,
                "tokens": list(answer.token_ids),
                "token_strs": list(answer.texts) if request.return_token_strs else None,
            }
        )

    async def Detokenize(
        self, request: tokenization_pb2.DetokenizeRequest, context: Context
    ) -> HttpBody:
        """Text of token ids."""
        try:
            asked = read_detokenize_request(request)
            answer = await self._tokenizing.detokenize(asked, time_left_s(context))
        except Exception as error:
            await _failures(context, "Detokenize", request.model).abort(error)
        return _body({"prompt": answer.text})

    async def CheckTokens(
        self, request: tokenization_pb2.CheckTokensRequest, context: Context
    ) -> HttpBody:
        """Whether prompts fit, each with the completion that is wanted."""
        checked: list[dict[str, object]] = []
        model = ""
        try:
            limit_s = time_left_s(context)
            for prompt in read_checks(request):
                model = prompt.model
                check_model(model)
                asked = worker_pb2.CountTokensRequest(model=model, text=prompt.prompt)
                answer = await self._tokenizing.count(asked, limit_s)
                wanted_tokens = answer.prompt_tokens + prompt.max_tokens
                checked.append(
                    {
                        "fits": wanted_tokens <= answer.context_length_tokens,
                        "tokenCount": answer.prompt_tokens,
                        "contextLength": answer.context_length_tokens,
                    }
                )
        except Exception as error:
            await _failures(context, "CheckTokens", model).abort(error)
        return _body({"prompts": checked})


def _failures(context: Context, method: str, model: str) -> Failures:
    return Failures(context, method, TOKENIZATION_SPELLING, model)


def _body(value: object) -> HttpBody:
    return HttpBody(content_type=JSON, data=encoded(value).encode())
