"""Conversations of several turns: each turn asks with all that was said before.

Several applications share the mesh: those of one have its system prompt in common.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2

_WORDS = re.findall(
    r"\w+",
    "about after all and any because before below between blue bring city close country early "
    "evening field find fire follow forest friend garden give gold grow happy hear high house "
    "island keep kind land large last late learn light line little long moon morning mountain "
    "near never night ocean old open paper people plain quiet rain read rest river road round",
)


@dataclass(frozen=True)
class Talk:
    """What is talked, and by how many at once."""

    clients: int
    applications: int
    system_words: int
    question_words: int
    turns: int
    answer_tokens: int
    pause_s: float
    """Between two turns of one client."""


@dataclass
class Turn:
    """What a client saw of one turn."""

    number: int
    """From 1."""
    first_token_s: float
    prompt_tokens: int
    cached_tokens: int


@dataclass
class Talked:
    """What was measured."""

    turns: list[Turn] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def talk(
    stubs: Sequence[Any], model: str, shape: Talk, *, duration_s: float, seed: int
) -> Talked:
    """Lets clients hold one conversation after another until the time is up."""
    talked = Talked()
    deadline_s = time.perf_counter() + duration_s
    async with asyncio.TaskGroup() as clients:
        for index in range(shape.clients):
            stub = stubs[index % len(stubs)]
            random = Random(f"{seed}-{index}")
            client = _client(
                stub, model, shape, random=random, deadline_s=deadline_s, talked=talked
            )
            clients.create_task(client)
    return talked


async def _client(
    stub: Any, model: str, shape: Talk, *, random: Random, deadline_s: float, talked: Talked
) -> None:
    await asyncio.sleep(random.random() * max(shape.pause_s, 0.2))
    while time.perf_counter() < deadline_s:
        application = random.randrange(shape.applications)
        system = _words(Random(f"application-{application}"), shape.system_words)
        messages = [_message(mesh_chat_pb2.ROLE_SYSTEM, system)]
        for number in range(1, shape.turns + 1):
            question = _words(random, shape.question_words)
            messages.append(_message(mesh_chat_pb2.ROLE_USER, question))
            try:
                turn, text = await _ask(stub, model, messages, shape.answer_tokens, number)
            except grpc.aio.AioRpcError as error:
                talked.errors.append(f"{error.code().name}: {error.details()}")
                return
            talked.turns.append(turn)
            messages.append(_message(mesh_chat_pb2.ROLE_ASSISTANT, text))
            if time.perf_counter() >= deadline_s:
                return
            await asyncio.sleep(shape.pause_s * (0.5 + random.random()))


async def _ask(
    stub: Any, model: str, messages: list[mesh_chat_pb2.Message], tokens: int, number: int
) -> tuple[Turn, str]:
    request = chat_pb2.ChatRequest(model=model)
    request.prompt.messages.extend(messages)
    request.sampling.max_tokens = tokens
    request.sampling.temperature = 0.0
    began_s = time.perf_counter()
    first_token_s = 0.0
    prompt_tokens = cached_tokens = 0
    texts: list[str] = []
    async for response in stub.Chat(request):
        kind = response.WhichOneof("event")
        if kind == "started":
            prompt_tokens = response.started.prompt_tokens
            cached_tokens = response.started.cached_tokens
        elif kind == "chunk":
            first_token_s = first_token_s or time.perf_counter() - began_s
            texts.append(response.chunk.text)
    return Turn(number, first_token_s, prompt_tokens, cached_tokens), "".join(texts)


def _words(random: Random, count: int) -> str:
    return " ".join(random.choice(_WORDS) for _ in range(count))


def _message(role: mesh_chat_pb2.Role.ValueType, text: str) -> mesh_chat_pb2.Message:
    return mesh_chat_pb2.Message(role=role, content=[mesh_chat_pb2.ContentPart(text=text)])
