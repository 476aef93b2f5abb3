"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery.directory import Directory
from services.gateway.openai.answer_body import PromptTokens
from services.gateway.openai.answering import bodies
from services.gateway.openai.completions.printing import CompletionBody, CompletionStream
from services.gateway.openai.completions.request import (
    read_completion_options,
    read_completion_requests,
)
from services.gateway.openai.constraints import constraint_field
from services.gateway.openai.envelope import envelope_of
from services.gateway.openai.failures import Context, Failures
from services.gateway.openai.spelling import completion_spelling
from services.gateway.relay.relay import Generation, Relay
from services.gateway.requests.validation import completion_start
from services.mesh.interceptors import current_request_id
from tokenmesh.openai.v1 import completion_pb2, completion_pb2_grpc


class Completions(completion_pb2_grpc.CompletionServiceServicer):
    """POST /v1/completions."""

    def __init__(self, relay: Relay, directory: Directory, tokenizing: Tokenizing) -> None:
        self._relay = relay
        self._directory = directory
        self._tokenizing = tokenizing

    def CreateCompletion(
        self, request: completion_pb2.CreateCompletionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or server-sent events."""
        spelling = completion_spelling(
            uses_prompt_logprobs=request.HasField("prompt_logprobs"),
            constraint=constraint_field(request),
        )
        failures = Failures(context, "CreateCompletion", spelling, request.model)
        return failures.guard(self._bodies(request, context))

    async def _bodies(
        self, request: completion_pb2.CreateCompletionRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        asked = read_completion_requests(request)
        options = read_completion_options(request)
        caller = caller_of(context, request.user)
        limit_s = time_left_s(context)
        choices_per_prompt = max(1, request.n)
        starts = [completion_start(each, current_request_id()) for each in asked]
        async with AsyncExitStack() as stack:
            generations: list[Generation] = []
            for start in starts:
                generation = self._relay.generate(
                    start, caller=caller, time_left_s=limit_s, whole=not request.stream
                )
                generations.append(await stack.enter_async_context(generation))
                abandon_when_over(context, generation)
            envelope = envelope_of("cmpl", generations[0], self._directory)
            prompt_tokens: PromptTokens = {}
            if options.token_ids:
                prompt_tokens = {
                    index: await self._tokenizing.prompt_tokens(start, limit_s)
                    for index, start in enumerate(starts)
                }
            make = CompletionStream if request.stream else CompletionBody
            printer = make(
                envelope,
                options,
                choices_per_prompt=choices_per_prompt,
                prompt_tokens=prompt_tokens,
            )
            answer = await stack.enter_async_context(
                aclosing(bodies(context, generations, printer))
            )
            async for body in answer:
                yield body
