"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.discovery.directory import Directory
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.request import read_chat_request
from services.gateway.openai.chat.stream import ChatStream
from services.gateway.openai.envelope import envelope_of
from services.gateway.openai.failures import EVENT_STREAM, JSON, Context, Failures
from services.gateway.openai.seed_header import tell_seed
from services.gateway.openai.spelling import chat_spelling
from services.gateway.openai.stream_options import includes_usage
from services.gateway.relay.relay import Relay
from services.gateway.requests.validation import chat_start
from services.mesh.interceptors import current_request_id
from tokenmesh.openai.v1 import chat_pb2, chat_pb2_grpc


class ChatCompletions(chat_pb2_grpc.ChatCompletionServiceServicer):
    """POST /v1/chat/completions."""

    def __init__(self, relay: Relay, directory: Directory) -> None:
        self._relay = relay
        self._directory = directory

    def CreateChatCompletion(
        self, request: chat_pb2.CreateChatCompletionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or server-sent events."""
        spelling = chat_spelling(
            uses_max_completion_tokens=request.HasField("max_completion_tokens")
        )
        failures = Failures(context, "CreateChatCompletion", spelling, request.model)
        return failures.guard(self._bodies(request, context))

    async def _bodies(
        self, request: chat_pb2.CreateChatCompletionRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        start = chat_start(read_chat_request(request), current_request_id())
        async with self._relay.generate(
            start,
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
            whole=not request.stream,
        ) as generation:
            abandon_when_over(context, generation)
            envelope = envelope_of("chatcmpl", generation, self._directory)
            if not request.stream:
                body = ChatBody(envelope, with_logprobs=request.logprobs)
                async for events in generation:
                    body.collect(0, events)
                await tell_seed(context, (generation,))
                yield HttpBody(content_type=JSON, data=body.print())
                return
            stream = ChatStream(envelope, include_usage=includes_usage(request))
            has_begun = False
            async for events in generation:
                printed = stream.print(0, events)
                if printed:
                    if not has_begun:
                        has_begun = True
                        await tell_seed(context, (generation,))
                    yield HttpBody(content_type=EVENT_STREAM, data=printed)
            yield HttpBody(content_type=EVENT_STREAM, data=stream.end())
