"""The gRPC services that Envoy transcodes OpenAI's API to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing

import grpc
from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.discovery.directory import Directory
from services.gateway.openai.chat_body import ChatBody
from services.gateway.openai.chat_request import read_chat_request
from services.gateway.openai.chat_stream import ChatStream
from services.gateway.openai.completion_printing import CompletionBody, CompletionStream
from services.gateway.openai.completion_request import read_completion_requests
from services.gateway.openai.envelope import Envelope, new_envelope
from services.gateway.openai.failures import EVENT_STREAM, JSON, Context, Failures
from services.gateway.openai.interleaving import interleaved
from services.gateway.openai.model_list import model_json, models_json
from services.gateway.openai.seed_header import tell_seed
from services.gateway.openai.spelling import COMPLETION_SPELLING, MODEL_SPELLING, chat_spelling
from services.gateway.openai.stream_options import includes_usage
from services.gateway.relay.relay import Generation, Relay
from services.gateway.requests.validation import chat_start, completion_start
from services.mesh.interceptors import current_request_id
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


def _envelope(prefix: str, generation: Generation, directory: Directory) -> Envelope:
    """Of an answer whose generation was just entered, so that the directory knows its model."""
    model = directory.resolve(generation.model).model
    return new_envelope(prefix, generation.created_at_s, generation.model, model)


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
            envelope = _envelope("chatcmpl", generation, self._directory)
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


class Completions(completion_pb2_grpc.CompletionServiceServicer):
    """POST /v1/completions."""

    def __init__(self, relay: Relay, directory: Directory) -> None:
        self._relay = relay
        self._directory = directory

    def CreateCompletion(
        self, request: completion_pb2.CreateCompletionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or server-sent events."""
        failures = Failures(context, "CreateCompletion", COMPLETION_SPELLING, request.model)
        return failures.guard(self._bodies(request, context))

    async def _bodies(
        self, request: completion_pb2.CreateCompletionRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        starts = [
            completion_start(each, current_request_id())
            for each in read_completion_requests(request)
        ]
        caller = caller_of(context, request.user)
        limit_s = time_left_s(context)
        choices_per_prompt = max(1, request.n)
        async with AsyncExitStack() as stack:
            generations: list[Generation] = []
            for start in starts:
                generation = self._relay.generate(
                    start, caller=caller, time_left_s=limit_s, whole=not request.stream
                )
                generations.append(await stack.enter_async_context(generation))
                abandon_when_over(context, generation)
            envelope = _envelope("cmpl", generations[0], self._directory)
            answers = await stack.enter_async_context(aclosing(interleaved(generations)))
            if not request.stream:
                body = CompletionBody(
                    envelope,
                    choices_per_prompt=choices_per_prompt,
                    with_logprobs=request.HasField("logprobs"),
                )
                async for prompt_index, events in answers:
                    body.collect(prompt_index, events)
                await tell_seed(context, generations)
                yield HttpBody(content_type=JSON, data=body.print())
                return
            stream = CompletionStream(
                envelope,
                choices_per_prompt=choices_per_prompt,
                include_usage=includes_usage(request),
            )
            has_begun = False
            async for prompt_index, events in answers:
                printed = stream.print(prompt_index, events)
                if printed:
                    if not has_begun:
                        has_begun = True
                        await tell_seed(context, generations)
                    yield HttpBody(content_type=EVENT_STREAM, data=printed)
            yield HttpBody(content_type=EVENT_STREAM, data=stream.end())


class Models(model_pb2_grpc.ModelServiceServicer):
    """GET /v1/models and GET /v1/models/{model}."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> HttpBody:
        """All names that a client may ask for."""
        return HttpBody(content_type=JSON, data=models_json(self._directory).encode())

    async def RetrieveModel(
        self, request: model_pb2.RetrieveModelRequest, context: Context
    ) -> HttpBody:
        """One of them."""
        try:
            card = model_json(self._directory, request.model)
        except Exception as error:
            failures = Failures(context, "RetrieveModel", MODEL_SPELLING, request.model)
            await failures.abort(error)
        return HttpBody(content_type=JSON, data=card.encode())
