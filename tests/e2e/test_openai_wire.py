"""The bytes on the wire are those of OpenAI's API, from the whole mesh through Envoy."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import httpx
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL

HELLO = {"model": SCRIPTED_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
PROMPT = {"model": SCRIPTED_MODEL, "prompt": "Hello"}
CHUNK = re.compile(
    r'data: \{"id":"chatcmpl-[0-9a-f]{32}","object":"chat\.completion\.chunk","created":\d+,'
    r'"model":"org/scripted","system_fingerprint":"fp_[0-9a-f]{10}","choices":(.*)\}'
)


def post(mesh: MeshNotice, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{mesh.base_url}{path}", json=body, headers=headers, timeout=60)


def test_a_stream_byte_for_byte(mesh: MeshNotice) -> None:
    body = {**HELLO, "max_tokens": 2, "seed": 1, "stream": True}
    response = post(mesh, "/chat/completions", body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert "content-encoding" not in response.headers
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    choices = [found[1] for event in events if (found := CHUNK.fullmatch(event))]
    assert len(choices) == len(events)
    opening, *texts, closing = choices
    tail = '"logprobs":null,"finish_reason":'
    assert (
        opening
        == f'[{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},{tail}null}}]'
    )
    for text in texts:
        assert re.fullmatch(
            re.escape('[{"index":0,"delta":{"content":"')
            + r"[^\"]+"
            + re.escape(f'"}},{tail}null}}]'),
            text,
        )
    assert closing == f'[{{"index":0,"delta":{{}},{tail}"length"}}]'


def test_curl_without_any_header(mesh: MeshNotice) -> None:
    command = ["curl", "-sS", "--no-buffer", f"{mesh.base_url}/chat/completions", "-d"]
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 3})
    printed = subprocess.run([*command, body], capture_output=True, text=True, check=True).stdout
    assert printed.startswith('data: {"id":"chatcmpl-')
    assert printed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("option", "version"), [("--http2-prior-knowledge", "2"), ("--http2", "1.1")]
)
def test_http_2_without_tls(mesh: MeshNotice, option: str, version: str) -> None:
    """With --http2, curl offers to upgrade, as Java's client does. That may be declined."""
    command = ["curl", "-sS", option, "-w", "%{http_version}"]
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 3})
    printed = subprocess.run(
        [*command, f"{mesh.base_url}/chat/completions", "-d", body],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.endswith(f"data: [DONE]\n\n{version}")


def test_stream_and_body_say_the_same(mesh: MeshNotice) -> None:
    options = {"seed": 7, "n": 2, "max_tokens": 40, "logprobs": True, "top_logprobs": 1}
    body = post(mesh, "/chat/completions", {**HELLO, **options}).json()
    stream = post(
        mesh,
        "/chat/completions",
        {**HELLO, **options, "stream": True, "stream_options": {"include_usage": True}},
    )
    chunks = [json.loads(event[6:]) for event in stream.text.split("\n\n")[:-2]]
    *chunks, last = chunks
    assert last["choices"] == []
    assert last["usage"] == body["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)
    for choice in body["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        logprobs = [entry for c in mine if c["logprobs"] for entry in c["logprobs"]["content"]]
        assert logprobs == choice["logprobs"]["content"]
        assert len(logprobs) == 40


def test_a_drawn_seed_is_told_and_draws_the_same_again(mesh: MeshNotice) -> None:
    drawn = post(mesh, "/chat/completions", {**HELLO, "max_tokens": 20})
    seed = int(drawn.headers["x-tokenmesh-seed"])
    again = post(mesh, "/chat/completions", {**HELLO, "max_tokens": 20, "seed": seed})
    assert again.json()["choices"] == drawn.json()["choices"]
    streamed = post(mesh, "/chat/completions", {**HELLO, "seed": seed, "stream": True})
    assert streamed.headers["x-tokenmesh-seed"] == str(seed)
    prompts = post(mesh, "/completions", {**PROMPT, "prompt": ["one", "two"], "max_tokens": 2})
    assert len(prompts.headers["x-tokenmesh-seed"].split(",")) == 2


def test_nulls_anywhere_are_as_absent(mesh: MeshNotice) -> None:
    names = (
        *("temperature", "top_p", "n", "stop", "max_tokens", "presence_penalty", "logit_bias"),
        *("frequency_penalty", "seed", "user", "stream", "stream_options", "logprobs", "tools"),
        *("top_logprobs", "response_format", "tool_choice", "metadata", "functions"),
        *("modalities", "stop_token_ids", "guided_choice", "bad_words", "chat_template_kwargs"),
    )
    for _ in range(6):
        response = post(mesh, "/chat/completions", {**HELLO, **dict.fromkeys(names)})
        assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] == 128


def test_fields_that_nobody_knows_are_ignored(mesh: MeshNotice) -> None:
    body = {**HELLO, "max_tokens": 1, "nobody_knows": {"a": [1, None]}, "verbosity": "low"}
    url = f"{mesh.base_url}/chat/completions?api-version=2024-10-21"
    assert httpx.post(url, json=body).status_code == 200


def test_completions_of_several_prompts(mesh: MeshNotice) -> None:
    body = {**PROMPT, "prompt": ["one", "two"], "n": 2, "max_tokens": 4, "echo": True, "seed": 3}
    answer = post(mesh, "/completions", body).json()
    assert answer["id"].startswith("cmpl-")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    starts = [choice["text"].split(" ")[0] for choice in answer["choices"]]
    assert starts == ["one", "one", "two", "two"]
    assert answer["usage"]["completion_tokens"] == 16
    streamed = post(mesh, "/completions", {**body, "stream": True}).text
    texts = ["", "", "", ""]
    for event in streamed.split("\n\n")[:-2]:
        (choice,) = json.loads(event[6:])["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in answer["choices"]]


def test_a_prompt_of_token_ids(mesh: MeshNotice) -> None:
    answer = post(mesh, "/completions", {**PROMPT, "prompt": [[300, 301], [302]]}).json()
    assert len(answer["choices"]) == 2
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_stop_strings(mesh: MeshNotice) -> None:
    whole = post(mesh, "/completions", {**PROMPT, "seed": 5, "max_tokens": 30}).json()
    words = whole["choices"][0]["text"].split()
    for stop in (words[3], [words[3], "zzzz"]):
        body = {**PROMPT, "seed": 5, "max_tokens": 30, "stop": stop}
        (choice,) = post(mesh, "/completions", body).json()["choices"]
        assert choice["finish_reason"] == "stop"
        assert words[3] not in choice["text"]


def test_models(mesh: MeshNotice) -> None:
    listed = httpx.get(f"{mesh.base_url}/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == (
        SCRIPTED_MODEL,
        "model",
        "tokenmesh",
    )
    for name in (SCRIPTED_MODEL, SCRIPTED_MODEL.replace("/", "%2F")):
        assert httpx.get(f"{mesh.base_url}/models/{name}").json() == model


@pytest.mark.parametrize(
    ("path", "body", "code", "status", "param"),
    [
        ("/chat/completions", {**HELLO, "model": "no/body"}, "model_not_found", 404, "model"),
        ("/completions", {**PROMPT, "model": "no/body"}, "model_not_found", 404, "model"),
        ("/chat/completions", {**HELLO, "temperature": 3}, None, 400, "temperature"),
        ("/chat/completions", {**HELLO, "top_p": 0}, None, 400, "top_p"),
        ("/chat/completions", {**HELLO, "messages": []}, None, 400, "messages"),
        ("/chat/completions", {"model": SCRIPTED_MODEL}, None, 400, "messages"),
        (
            "/chat/completions",
            {**HELLO, "messages": [{"role": "user", "content": None}]},
            "missing_required_parameter",
            400,
            "messages[0].content",
        ),
        (
            "/chat/completions",
            {**HELLO, "messages": [{"role": "boss", "content": "x"}]},
            "invalid_value",
            400,
            "messages[0].role",
        ),
        ("/chat/completions", {**HELLO, "n": 0}, "integer_below_min_value", 400, "n"),
        (
            "/chat/completions",
            {**HELLO, "max_completion_tokens": 10**6},
            "context_length_exceeded",
            400,
            "max_completion_tokens",
        ),
        (
            "/completions",
            {**PROMPT, "max_tokens": 10**6},
            "context_length_exceeded",
            400,
            "max_tokens",
        ),
        (
            "/chat/completions",
            {**HELLO, "response_format": {"type": "json_object"}},
            "capability_missing",
            400,
            "response_format",
        ),
        ("/completions", {"model": SCRIPTED_MODEL}, "missing_required_parameter", 400, "prompt"),
        ("/completions", {**PROMPT, "prompt": [10**9]}, None, 400, "prompt"),
        ("/completions", {**PROMPT, "suffix": "x"}, "unsupported_parameter", 400, "suffix"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_first_token_have_their_status(
    mesh: MeshNotice,
    path: str,
    body: dict[str, Any],
    code: str | None,
    status: int,
    param: str,
    stream: bool,
) -> None:
    response = post(mesh, path, {**body, "stream": stream})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert not re.search(r"\b(sampling|prompt)\.", error["message"])


def test_an_unknown_model_in_openais_words(mesh: MeshNotice) -> None:
    assert post(mesh, "/chat/completions", {**HELLO, "model": "gpt-9"}).json() == {
        "error": {
            "message": "The model `gpt-9` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
