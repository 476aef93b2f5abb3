"""Errors are told in OpenAI's words: the design's table, row by row."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format

from services.gateway.openai.error_shape import for_http, openai_error, status_with
from services.gateway.openai.spelling import MODEL_SPELLING, chat_spelling, completion_spelling
from services.mesh import errors
from tokenmesh.openai.v1 import error_pb2

CHAT = chat_spelling(uses_max_completion_tokens=False)
INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("error", "kind", "code", "retries"),
    [
        (errors.InvalidRequestError("x"), INVALID, None, False),
        (errors.ContextLengthError("x"), INVALID, "context_length_exceeded", False),
        (errors.ModelNotFoundError("x"), INVALID, "model_not_found", False),
        (errors.UnauthenticatedError("x"), "authentication_error", "invalid_api_key", False),
        (errors.PermissionDeniedError("x"), "permission_error", None, False),
        (errors.QueueFullError("x"), "rate_limit_error", "queue_full", True),
        (errors.RateLimitedError("x"), "rate_limit_error", "rate_limit_exceeded", True),
        (errors.OutOfMemoryError("x"), "server_error", "out_of_memory", True),
        (errors.NoWorkerError("x"), "server_error", "no_worker", True),
        (errors.WorkerLostError("x"), "server_error", "worker_lost", True),
        (errors.DeadlineError("x"), "timeout", "deadline_exceeded", False),
        (errors.UnsupportedError("x"), INVALID, "capability_missing", False),
        (errors.InternalError("x"), "server_error", None, False),
    ],
)
def test_each_row_of_the_table(
    error: errors.MeshError, kind: str, code: str | None, retries: bool
) -> None:
    known = for_http(error)
    shown = openai_error(known, CHAT, "m")
    assert (shown.type, shown.code) == (kind, code)
    assert (known.retry_after_s is not None) == retries


def test_the_status_has_one_detail_with_the_body_of_the_error() -> None:
    error = errors.InvalidRequestError("sampling.top_p must be so", field="sampling.top_p")
    shown = openai_error(error, CHAT, "m")
    (packed,) = status_with(error, shown).details
    detail = error_pb2.Error()
    assert packed.Unpack(detail)
    printed = json_format.MessageToDict(detail)
    assert printed == json.loads(shown.json())["error"]
    assert printed == {
        "message": "top_p must be so",
        "type": INVALID,
        "param": "top_p",
        "code": None,
    }


def test_an_unknown_model_is_told_in_openais_words() -> None:
    shown = openai_error(errors.ModelNotFoundError("gone", field="model"), CHAT, "org/x")
    assert shown.message == ("The model `org/x` does not exist or you do not have access to it.")
    assert (shown.param, shown.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("sampling.temperature", "temperature"),
        ("sampling.choices", "n"),
        ("sampling.max_tokens", "max_tokens"),
        ("sampling.logit_bias[5]", "logit_bias[5]"),
        ("sampling.include_stop_string", "include_stop_str_in_output"),
        ("prompt.messages[3].content", "messages[3].content"),
        ("prompt.tools[0].name", "tools[0].function.name"),
        ("prompt.tools[0].parameters", "tools[0].function.parameters"),
        ("prompt.tools[1].strict", "tools[1].function.strict"),
        ("prompt.tool_choice.mode", "tool_choice"),
        ("prompt.tool_choice.name", "tool_choice.function.name"),
        (
            "prompt.messages[1].tool_calls[0].name",
            "messages[1].tool_calls[0].function.name",
        ),
        ("messages[3].content", "messages[3].content"),
        ("model", "model"),
    ],
)
def test_fields_are_called_as_the_client_called_them(path: str, shown: str) -> None:
    assert CHAT.field(path) == shown


def test_the_spelling_depends_on_the_call() -> None:
    modern = chat_spelling(uses_max_completion_tokens=True)
    assert modern.field("sampling.max_tokens") == "max_completion_tokens"
    assert completion_spelling().field("sampling.top_logprobs") == "logprobs"
    assert completion_spelling().field("token_ids.values") == "prompt"
    assert completion_spelling().field("prompt.token_ids") == "prompt"
    assert MODEL_SPELLING.field("model") == "model"


def test_a_message_is_told_with_the_clients_names() -> None:
    said = CHAT.words("sampling.best_of must be at least sampling.choices, which is 2")
    assert said == "best_of must be at least n, which is 2"


def test_a_stream_that_fails_ends_with_one_event() -> None:
    event = openai_error(errors.WorkerLostError("gone"), CHAT, "m").event()
    assert event == (
        b'data: {"error":{"message":"gone","type":"server_error","param":null,'
        b'"code":"worker_lost"}}\n\n'
    )


@pytest.mark.parametrize(
    ("asked_by", "path", "shown"),
    [
        ("response_format", "sampling.constraint", "response_format"),
        (
            "response_format",
            "sampling.constraint.json_schema.schema",
            "response_format.json_schema.schema",
        ),
        ("guided_regex", "sampling.constraint", "guided_regex"),
        ("guided_json", "sampling.constraint.json_schema.schema", "guided_json"),
        ("structured_outputs.choice", "sampling.constraint.choices", "structured_outputs.choice"),
    ],
)
def test_a_constraint_is_called_as_the_client_asked_for_it(
    asked_by: str, path: str, shown: str
) -> None:
    for spelling in (chat_spelling(constraint=asked_by), completion_spelling(constraint=asked_by)):
        assert spelling.field(path) == shown
        assert spelling.words(f"{path} must not be empty") == f"{shown} must not be empty"


def test_log_probabilities_of_the_prompt_are_called_as_the_client_asked_for_them() -> None:
    path = "sampling.prompt_top_logprobs"
    assert CHAT.field(path) == "prompt_logprobs"
    assert completion_spelling().field(path) == "logprobs"
    assert completion_spelling(uses_prompt_logprobs=True).field(path) == "prompt_logprobs"
