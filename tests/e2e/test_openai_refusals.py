"""For every way to be wrong: the status, OpenAI's error, and the class that OpenAI's SDK raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL

HELLO = [{"role": "user", "content": "Hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
INVALID = "invalid_request_error"


@pytest.fixture(scope="module")
def client(mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=mesh.base_url, api_key="unused", max_retries=0) as opened:
        yield opened


def part(content: Any) -> dict[str, Any]:
    """A body whose one message has this content after a text."""
    parts = [{"type": "text", "text": "look"}, content]
    return {"messages": [{"role": "user", "content": parts}]}


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": fields}]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields", "param", "code", "said"),
    [
        (CHAT, {"model": None}, "model", "missing_required_parameter", "'model'"),
        (CHAT, {"messages": None}, "messages", None, "at least one"),
        (CHAT, {"messages": "Hello"}, "messages[0]", "invalid_type", "an object"),
        (CHAT, {"messages": [{"role": "function"}]}, "messages[0].role", "invalid_value", "tool"),
        (CHAT, part(IMAGE), "messages[0].content[1]", "capability_missing", "only text"),
        (CHAT, part({"type": "video"}), "messages[0].content[1].type", "invalid_value", "text"),
        (CHAT, part(5), "messages[0].content[1]", "invalid_type", "a number"),
        (CHAT, {"temperature": -0.1}, "temperature", None, "between 0 and 2"),
        (CHAT, {"temperature": "NaN"}, "temperature", None, "between 0 and 2"),
        (CHAT, {"top_p": 1.5}, "top_p", None, "up to 1"),
        (CHAT, {"top_k": -2}, "top_k", None, "-1 or more"),
        (CHAT, {"n": 129}, "n", None, "between 1 and 128"),
        (CHAT, {"max_tokens": 0}, "max_tokens", "integer_below_min_value", ">= 1"),
        (CHAT, {"max_tokens": 2**40}, "max_tokens", "integer_above_max_value", "4294967296"),
        (CHAT, {"max_tokens": 10**30}, "max_tokens", "invalid_type", "64 bits"),
        (CHAT, {"seed": 2**64}, "seed", "invalid_type", "64 bits"),
        (CHAT, {"stop": [""]}, "stop[0]", None, "empty"),
        (CHAT, {"stop": ["a"] * 65}, "stop", None, "64"),
        (CHAT, {"logit_bias": {"5": 101}}, "logit_bias[5]", None, "100"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", None, "'logprobs'"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", None, "between 0 and 20"),
        (CHAT, {"presence_penalty": 2.1}, "presence_penalty", None, "between -2 and 2"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions", "unsupported_parameter", "'tools'"),
        (CHAT, {"audio": {"voice": "ash"}}, "audio", "unsupported_parameter", "speaks"),
        (CHAT, {"modalities": ["audio"]}, "modalities[0]", "invalid_value", "'text'"),
        (CHAT, {"service_tier": "gold"}, "service_tier", "invalid_value", "'flex'"),
        (CHAT, {"metadata": {"a": "x" * 513}}, "metadata.a", None, "512"),
        (CHAT, {"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "'xhigh'"),
        (CHAT, function(name="f"), "tools", "capability_missing", "calls no tools"),
        (CHAT, function(name="a b"), "tools[0].function.name", None, "letters"),
        (CHAT, {"tools": [{"type": "x"}]}, "tools[0].type", "invalid_value", "'function'"),
        (CHAT, {"tool_choice": "f"}, "tool_choice", "invalid_value", "'required'"),
        (CHAT, {"guided_regex": "a+"}, "guided_regex", "capability_missing", "constrain"),
        (CHAT, {"chat_template_kwargs": 5}, "chat_template_kwargs", "invalid_type", "an object"),
        (CHAT, {"user": "x" * 513}, "user", None, "512"),
        (COMPLETIONS, {"prompt": None}, "prompt", "missing_required_parameter", "'prompt'"),
        (COMPLETIONS, {"prompt": [1, 2.5]}, "prompt[1]", "invalid_type", "an integer"),
        (COMPLETIONS, {"prompt": [10**8]}, "prompt", None, "token ids are"),
        (COMPLETIONS, {"logprobs": 21}, "logprobs", None, "between 0 and 20"),
        (COMPLETIONS, {"n": 2, "best_of": 1}, "best_of", None, "at least n, which is 2"),
        (COMPLETIONS, {"max_tokens": 10**6}, "max_tokens", "context_length_exceeded", "32768"),
        (COMPLETIONS, {"suffix": "x"}, "suffix", "unsupported_parameter", "inserts"),
        (
            COMPLETIONS,
            {"truncate_prompt_tokens": 3},
            "truncate_prompt_tokens",
            "unsupported_parameter",
            "/tokenize",
        ),
        (COMPLETIONS, {"structured_outputs": []}, "structured_outputs", "invalid_type", "a list"),
    ],
)
def test_a_field_that_is_wrong(
    client: openai.OpenAI,
    path: str,
    fields: dict[str, Any],
    param: str,
    code: str | None,
    said: str,
    stream: bool,
) -> None:
    prompt = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
    body = {"model": SCRIPTED_MODEL, **prompt, "stream": stream, **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(path.removeprefix("/v1"), body=body, cast_to=object)
    error = caught.value
    assert (error.param, error.type) == (param, INVALID)
    assert error.code == code
    assert said in error.message
    assert error.request_id


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/tokenize", {"prompt": "x"}, "model", "missing_required_parameter"),
        ("/tokenize", {"model": SCRIPTED_MODEL}, "prompt", "missing_required_parameter"),
        (
            "/tokenize",
            {"model": SCRIPTED_MODEL, "prompt": "x", "messages": HELLO},
            "messages",
            None,
        ),
        (
            "/tokenize",
            {"model": SCRIPTED_MODEL, "messages": [{"role": "boss", "content": "x"}]},
            "messages[0].role",
            "invalid_value",
        ),
        ("/tokenize", {"model": SCRIPTED_MODEL, "prompt": 5}, "prompt", "invalid_type"),
        ("/detokenize", {"tokens": [1]}, "model", "missing_required_parameter"),
        ("/detokenize", {"model": SCRIPTED_MODEL, "tokens": [10**8]}, "tokens", None),
        (
            "/detokenize",
            {"model": SCRIPTED_MODEL, "tokens": [-1]},
            "tokens[0]",
            "integer_below_min_value",
        ),
        ("/api/v1/token_check", {}, "prompts", "missing_required_parameter"),
        (
            "/api/v1/token_check",
            {"prompts": [{"prompt": "x"}]},
            "prompts[0].model",
            "missing_required_parameter",
        ),
        (
            "/api/v1/token_check",
            {"prompts": [{"model": SCRIPTED_MODEL, "max_tokens": "many"}]},
            "prompts[0].max_tokens",
            "invalid_type",
        ),
    ],
)
def test_a_field_of_tokenization_that_is_wrong(
    mesh: MeshNotice, path: str, body: dict[str, Any], param: str, code: str | None
) -> None:
    response = httpx.post(f"http://{mesh.grpc_address}{path}", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (INVALID, param, code)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/api/v1/token_check"])
def test_tokenizing_for_a_model_that_nobody_serves(mesh: MeshNotice, path: str) -> None:
    asked = {"model": "nobody", "prompt": "x", "tokens": [1]}
    response = httpx.post(f"http://{mesh.grpc_address}{path}", json={**asked, "prompts": [asked]})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-encoding": "gzip"}, b"\x1f\x8b"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--"),
    ],
)
def test_a_body_that_is_no_json_by_its_headers(
    mesh: MeshNotice, headers: dict[str, str], content: bytes
) -> None:
    response = httpx.post(f"{mesh.base_url}/chat/completions", content=content, headers=headers)
    assert response.status_code == 415
    assert response.json()["error"]["type"] == INVALID


def test_what_is_no_400_is_the_sdks_own_too(client: openai.OpenAI) -> None:
    model, messages = SCRIPTED_MODEL, [{"role": "user", "content": "Hello"}]
    chat: Any = client.chat.completions
    with pytest.raises(openai.NotFoundError) as unknown:
        chat.create(model="nobody", messages=messages, stream=True)
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError) as nowhere:
        client.post("/nothing", body={}, cast_to=object)
    assert nowhere.value.code == "unknown_url"
    with pytest.raises(openai.APIStatusError) as wrong_method:
        client.get("/chat/completions", cast_to=object)
    assert wrong_method.value.status_code == 405
    late = {"x-request-timeout": "0.000001"}
    with pytest.raises(openai.InternalServerError) as deadline:
        chat.create(model=model, messages=messages, extra_headers=late)
    assert (deadline.value.status_code, deadline.value.type) == (504, "timeout")
    with pytest.raises(openai.BadRequestError) as header:
        chat.create(model=model, messages=messages, extra_headers={"x-request-timeout": "soon"})
    assert header.value.param == "x-request-timeout"
