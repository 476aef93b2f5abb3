"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery.directory import Directory
from services.gateway.openai.answer_body import PromptTokens
from services.gateway.openai.answer_options import SERVED_TIER
from services.gateway.openai.answering import bodies
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.messages import last_words
from services.gateway.openai.chat.request import read_chat_options, read_chat_request
from services.gateway.openai.chat.stream import ChatStream
from services.gateway.openai.constraints import constraint_field
from services.gateway.openai.envelope import envelope_of
from services.gateway.openai.failures import Context, Failures
from services.gateway.openai.spelling import chat_spelling
from services.gateway.relay.relay import Relay
from services.gateway.requests.validation import chat_start
from services.mesh.interceptors import current_request_id
from tokenmesh.openai.v1 import chat_pb2, chat_pb2_grpc


class ChatCompletions(chat_pb2_grpc.ChatCompletionServiceServicer):
    """POST /v1/chat/completions."""

    def __init__(self, relay: Relay, directory: Directory, tokenizing: Tokenizing) -> None:
        self._relay = relay
        self._directory = directory
        self._tokenizing = tokenizing

    def CreateChatCompletion(
        self, request: chat_pb2.CreateChatCompletionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or server-sent events."""
        spelling = chat_spelling(
            uses_max_completion_tokens=request.HasField("max_completion_tokens"),
            constraint=constraint_field(request),
        )
        failures = Failures(context, "CreateChatCompletion", spelling, request.model)
        return failures.guard(self._bodies(request, context))

    async def _bodies(
        self, request: chat_pb2.CreateChatCompletionRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        asked = read_chat_request(request)
        options = read_chat_options(request)
        limit_s = time_left_s(context)
        async with self._relay.generate(
            chat_start(asked, current_request_id()),
            caller=caller_of(context, asked.user),
            time_left_s=limit_s,
            whole=not request.stream,
        ) as generation:
            abandon_when_over(context, generation)
            tier = SERVED_TIER if options.service_tier else None
            envelope = envelope_of("chatcmpl", generation, self._directory, tier)
            echo = last_words(asked.prompt) if options.echo else ""
            prompt_tokens: PromptTokens | None = None
            if options.token_ids:
                prompt = chat_start(asked, current_request_id())
                prompt_tokens = {0: await self._tokenizing.prompt_tokens(prompt, limit_s)}
            make = ChatStream if request.stream else ChatBody
            printer = make(envelope, options, echo=echo, prompt_tokens=prompt_tokens)
            async with aclosing(bodies(context, (generation,), printer)) as answer:
                async for body in answer:
                    yield body
