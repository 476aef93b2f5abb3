"""What docs/api.md says of each engine is what a mesh of it does, asked as Envoy asks."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from services.worker.chat_formats.names import by_name
from services.worker.engines import create
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings
from services.worker.server import running as running_worker
from services.worker.settings import WorkerSettings
from tests import chat_templates
from tests.api_document import Table, subjects, tables
from tests.encoders import encoder
from tests.fakes.gateway_mesh import Client, controller, gateway
from tests.fakes.responses_client import ResponseError
from tests.models import CONTEXT_TOKENS, checkpoint
from tests.openai_json import request_of
from tokenmesh.openai.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    completion_pb2,
    completion_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    response_pb2,
    response_pb2_grpc,
    tokenization_pb2,
    tokenization_pb2_grpc,
)

SECTION = "How each engine treats it"
MODEL = "m"
DOCUMENTS = "{%- for each in documents or [] %}{{- each.text }}{%- endfor %}"

Body = Mapping[str, Any]

CALLS: Mapping[str, tuple[type[Message], Any, str]] = {
    "/v1/chat/completions": (
        chat_pb2.CreateChatCompletionRequest,
        chat_pb2_grpc.ChatCompletionServiceStub,
        "CreateChatCompletion",
    ),
    "/v1/completions": (
        completion_pb2.CreateCompletionRequest,
        completion_pb2_grpc.CompletionServiceStub,
        "CreateCompletion",
    ),
    "/v1/responses": (
        response_pb2.CreateResponseRequest,
        response_pb2_grpc.ResponseServiceStub,
        "CreateResponse",
    ),
    "/v1/embeddings": (
        embedding_pb2.CreateEmbeddingRequest,
        embedding_pb2_grpc.EmbeddingServiceStub,
        "CreateEmbedding",
    ),
    "/v1/rerank": (embedding_pb2.RerankRequest, embedding_pb2_grpc.EmbeddingServiceStub, "Rerank"),
    "/v1/score": (embedding_pb2.ScoreRequest, embedding_pb2_grpc.EmbeddingServiceStub, "Score"),
    "/tokenize": (
        tokenization_pb2.TokenizeRequest,
        tokenization_pb2_grpc.TokenizationServiceStub,
        "Tokenize",
    ),
    "/detokenize": (
        tokenization_pb2.DetokenizeRequest,
        tokenization_pb2_grpc.TokenizationServiceStub,
        "Detokenize",
    ),
    "/api/v1/token_check": (
        tokenization_pb2.CheckTokensRequest,
        tokenization_pb2_grpc.TokenizationServiceStub,
        "CheckTokens",
    ),
}

MESSAGES = [{"role": "user", "content": "hello"}]
NEEDED: Mapping[str, Body] = {
    "/v1/chat/completions": {
        "model": MODEL,
        "messages": MESSAGES,
        "max_completion_tokens": 16,
        "seed": 3,
        "temperature": 1.0,
    },
    "/v1/completions": {
        "model": MODEL,
        "prompt": "hello world",
        "max_tokens": 16,
        "seed": 3,
        "temperature": 1.0,
        "return_token_ids": True,
    },
    "/v1/responses": {"model": MODEL, "input": "hello", "max_output_tokens": 16, "seed": 3},
    "/v1/embeddings": {"model": MODEL, "input": "hello"},
    "/v1/rerank": {"model": MODEL, "query": "hello", "documents": ["world", "hello"]},
    "/v1/score": {"model": MODEL, "text_1": "hello", "text_2": "world"},
    "/tokenize": {"model": MODEL, "prompt": "hello"},
    "/detokenize": {"model": MODEL, "tokens": [40, 41]},
    "/api/v1/token_check": {"prompts": [{"model": MODEL, "prompt": "hello", "max_tokens": 3}]},
}
"""What is asked where a table does not say more. The random models end nowhere by themselves."""

BY_SUBJECT: Mapping[str, tuple[str, Body]] = {
    "/tokenize with prompt": ("/tokenize", {}),
    "/tokenize with messages": ("/tokenize", {"prompt": None, "messages": MESSAGES}),
}


@dataclass(frozen=True)
class Probe:
    """A field, asked for beside others, in a call that shows whether it has its effect."""

    asks: Body
    beside: Body = field(default_factory=dict)
    call: str = "/v1/completions"
    refused: str = ""
    """What a refusal names. The first field that is asked for, where this is empty."""


CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
STRICT = {"type": "function", "function": {"name": "add", "parameters": SCHEMA, "strict": True}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
ENDS = {"logit_bias": {"0": 100}, "max_tokens": 40}
"""Has a model end at once. The scripted engine ends by itself, before so many tokens."""
NO_SCHEMA: Body = {"type": "json_object"}

PROBES: Mapping[str, Probe] = {
    "max_tokens": Probe({"max_tokens": 5}),
    "max_completion_tokens": Probe({"max_completion_tokens": 5}, call=CHAT),
    "max_output_tokens": Probe({"max_output_tokens": 5}, call="/v1/responses"),
    "min_tokens": Probe({"min_tokens": 34}, ENDS),
    "ignore_eos": Probe({"ignore_eos": True}, ENDS),
    "stop": Probe({"stop": list("aeiou")}),
    "stop_token_ids": Probe({"stop_token_ids": [*range(260)]}),
    "include_stop_str_in_output": Probe(
        {"include_stop_str_in_output": True}, {"stop": list("aeiou")}
    ),
    "skip_special_tokens": Probe(
        {"skip_special_tokens": False}, {"logit_bias": {"1": 100}, "max_tokens": 40}
    ),
    "n": Probe({"n": 2}),
    "seed": Probe({"seed": 4}),
    "echo": Probe({"echo": True}),
    "temperature": Probe({"temperature": 2.0}),
    "top_p": Probe({"top_p": 0.05}),
    "top_k": Probe({"top_k": 2}),
    "min_p": Probe({"min_p": 0.9}),
    "presence_penalty": Probe({"presence_penalty": 2}),
    "frequency_penalty": Probe({"frequency_penalty": 2}),
    "repetition_penalty": Probe({"repetition_penalty": 8}),
    "logit_bias": Probe({"logit_bias": {"50": 100}}),
    "logprobs": Probe({"logprobs": 1}),
    "top_logprobs": Probe({"top_logprobs": 1, "logprobs": True}, call=CHAT),
    "prompt_logprobs": Probe({"prompt_logprobs": 1}),
    "echo with logprobs": Probe({"logprobs": 1}, {"echo": True}),
    "best_of": Probe({"best_of": 3}),
    "bad_words": Probe({"bad_words": list("abcdefghijklmnopqrstuvwxyz")}),
    "response_format": Probe({"response_format": NO_SCHEMA}),
    "text.format": Probe(
        {"text": {"format": NO_SCHEMA}}, call="/v1/responses", refused="text.format"
    ),
    "guided_json": Probe({"guided_json": SCHEMA}),
    "guided_regex": Probe({"guided_regex": "[ab]+"}),
    "guided_choice": Probe({"guided_choice": ["yes", "no"]}),
    "guided_grammar": Probe({"guided_grammar": 'root ::= "a"'}),
    "structured_outputs": Probe(
        {"structured_outputs": {"regex": "[ab]+"}}, refused="structured_outputs.regex"
    ),
    "tools": Probe({"tools": [TOOL]}, call=CHAT),
    "tool_choice forced": Probe(
        {"tool_choice": "required"}, {"tools": [TOOL]}, call=CHAT, refused="tool_choice"
    ),
    "tools[].strict": Probe({"tools": [STRICT]}, call=CHAT, refused="tools[0].function.strict"),
    "reasoning_effort": Probe({"reasoning_effort": "none"}, call=CHAT),
    "chat_template_kwargs": Probe({"chat_template_kwargs": {"enable_thinking": False}}, call=CHAT),
    "documents": Probe({"documents": [{"text": "a fact"}]}, call=CHAT),
    "add_generation_prompt": Probe({"add_generation_prompt": False}, call=CHAT),
    "continue_final_message": Probe(
        {"continue_final_message": True, "add_generation_prompt": False},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "Well"}]},
        call=CHAT,
    ),
    "messages with images": Probe(
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        call=CHAT,
        refused="messages[0].content[0]",
    ),
}


class Asking:
    """Asks one mesh, and says in the document's words what comes of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._plain: dict[str, Any] = {}

    async def call(self, subject: str) -> str:
        """What comes of a call."""
        call, body = BY_SUBJECT.get(subject, (subject, {}))
        answer = await self._answer(call, {**NEEDED[call], **body})
        return "refused" if _is_refusal(answer, "model") else "yes"

    async def field(self, probe: Probe) -> str:
        """What comes of a field."""
        before = {**NEEDED[probe.call], **probe.beside}
        changed = await self._answer(probe.call, {**before, **probe.asks})
        if _is_refusal(changed, probe.refused or next(iter(probe.asks))):
            return "refused"
        plain = await self._plain_answer(probe.call, before)
        if changed == plain:
            return "checked"
        told = set(_logprobs(changed)) - set(_logprobs(plain))
        return "simulated" if told == {0.0} else "yes"

    async def _plain_answer(self, call: str, body: Body) -> Any:
        known = json.dumps([call, body])
        if known not in self._plain:
            self._plain[known] = await self._answer(call, body)
            assert await self._answer(call, body) == self._plain[known]
        return self._plain[known]

    async def _answer(self, call: str, body: Body) -> Any:
        """The body, without what no two answers have in common, or the error."""
        kind, stub, method = CALLS[call]
        request = request_of(kind, {name: each for name, each in body.items() if each is not None})
        answer = getattr(stub(self._client.channel), method)(request)
        try:
            if isinstance(answer, grpc.aio.UnaryUnaryCall):
                return _comparable((await answer).data)
            return _comparable(b"".join([each.data async for each in answer]))
        except grpc.aio.AioRpcError as error:
            return ResponseError(error)


def _comparable(data: bytes) -> Any:
    return json.loads(
        re.sub(
            rb'"(id|created|created_at|completed_at|cached_tokens)":("[^"]*"|[\d.]+)', b'"":0', data
        )
    )


def _is_refusal(answer: Any, param: str) -> bool:
    """Whether a model cannot; then the error must say so, by the field's name."""
    if not isinstance(answer, ResponseError):
        return False
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT, answer
    assert (answer.reason, answer.param) == ("capability_missing", param)
    return True


def _logprobs(answer: Any) -> Iterator[float]:
    """Log probabilities of chosen tokens."""
    for choice in answer.get("choices", ()):
        told = choice.get("logprobs") or {}
        yield from (each for each in told.get("token_logprobs", ()) if each is not None)
        yield from (each["logprob"] for each in told.get("content", ()))


def _columns(table: Table) -> dict[str, dict[str, str]]:
    """By the head of a column, what it says of each subject."""
    return {
        head.replace("`", ""): {
            subject: row[at] for row in table.rows for subject in subjects(row[0])
        }
        for at, head in enumerate(table.head)
        if at
    }


CALL_COLUMNS, FIELD_COLUMNS = (_columns(each) for each in tables(SECTION))


def _checkpoint(folder: Path, **fields: Any) -> EngineSettings:
    return EngineSettings(
        str(folder),
        model_names=(MODEL,),
        device="cpu",
        dtype="float32",
        threads=1,
        max_running=4,
        **fields,
    )


def _generating(folder: Path, model_type: str) -> EngineSettings:
    template = folder / "template.jinja"
    template.write_text(DOCUMENTS + chat_templates.source("qwen3"))
    return _checkpoint(checkpoint(model_type), chat_template_path=template)


def _settings(column: str, folder: Path) -> Any:
    match column:
        case "transformers, paged":
            return _generating(folder, "llama")
        case "transformers, serial":
            return _generating(folder, "mamba")
        case "encoder, embedding model":
            return EncoderSettings(_checkpoint(encoder("bert")))
        case "encoder, cross-encoder":
            return EncoderSettings(_checkpoint(encoder("bert-cross")))
    assert column == "scripted"
    return ScriptedSettings(
        (MODEL,),
        Pace(answer_tokens=30),
        context_length_tokens=CONTEXT_TOKENS,
        chat_format=by_name("qwen3"),
    )


@asynccontextmanager
async def mesh(settings: Any) -> AsyncIterator[Client]:
    """A controller, a gateway, and a worker with an engine."""
    async with controller() as address:
        worker = WorkerSettings(engine=settings, port=0, controllers=(address,), grace_period_s=0.0)
        engine = create(worker.engine_name, settings)
        await engine.start()
        async with (
            running_worker(worker, engine, CollectorRegistry()),
            gateway(address) as client,
        ):
            await client.wait_served(1, MODEL)
            yield client


def test_every_engine_and_every_probe_is_in_the_tables() -> None:
    assert set(FIELD_COLUMNS) <= set(CALL_COLUMNS)
    for said in FIELD_COLUMNS.values():
        assert set(said) == set(PROBES)
    for said in CALL_COLUMNS.values():
        calls = {BY_SUBJECT.get(subject, (subject, {}))[0] for subject in said}
        assert calls == set(CALLS)


@pytest.mark.parametrize("column", CALL_COLUMNS)
async def test_the_tables_say_what_is(column: str, tmp_path: Path) -> None:
    async with mesh(_settings(column, tmp_path)) as client:
        asking = Asking(client)
        calls = {subject: await asking.call(subject) for subject in CALL_COLUMNS[column]}
        assert calls == CALL_COLUMNS[column]
        said: Mapping[str, str] = FIELD_COLUMNS.get(column, {})
        found = {subject: await asking.field(PROBES[subject]) for subject in said}
        assert found == said
