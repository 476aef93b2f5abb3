"""REST bodies as nobody means them, through real Envoy: an answer, or a refusal that says why."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cli.up.notice import MeshNotice
from services.gateway.openai.responses.items import ITEM_TYPES
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.fuzz.amount import FACTOR

ALLOWED = {200, 400, 404, 413, 429, 501}
PATHS = ("/chat/completions", "/completions")
FIELDS = (
    *("messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n"),
    *("stream", "stream_options", "stop", "seed", "logprobs", "top_logprobs", "logit_bias"),
    *("tools", "tool_choice", "response_format", "user", "suffix", "echo", "best_of", "metadata"),
    *("frequency_penalty", "presence_penalty", "min_tokens", "ignore_eos", "top_k", "model"),
    *("service_tier", "verbosity", "reasoning_effort", "prediction", "modalities", "documents"),
    *("chat_template_kwargs", "guided_json", "structured_outputs", "priority", "return_token_ids"),
    *(
        "prompt_logprobs",
        "stream_interval",
        "use_beam_search",
        "functions",
        "truncate_prompt_tokens",
    ),
)
TOKENIZATION_FIELDS = ("model", "prompt", "messages", "tokens", "prompts", "tools", "documents")
TOKENIZATION_PATHS = ("/tokenize", "/detokenize", "/api/v1/token_check")
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.sampled_from([0, -1, 1, 2**31, 2**53 + 1, 1e308, -1e308, 1e-320]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=40))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.one_of(st.sampled_from(["user", "system", "assistant", "tool"]), JSON)},
        optional={"content": JSON, "name": JSON, "tool_calls": JSON, "tool_call_id": JSON},
    ),
    max_size=4,
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A request that is in order but for a few fields."""
    body: dict[str, Any] = {
        "model": SCRIPTED_MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "prompt": "Hello",
        "max_tokens": 3,
    }
    for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4, unique=True)):
        body[name] = draw(MESSAGES if name == "messages" and draw(st.booleans()) else JSON)
    return body


RESPONSE_FIELDS = (
    *("input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"),
    *("temperature", "top_p", "max_output_tokens", "top_logprobs", "include", "metadata", "store"),
    *("previous_response_id", "truncation", "service_tier", "stream", "stream_options", "user"),
    *("max_tool_calls", "conversation", "prompt", "background", "seed", "priority", "min_tokens"),
)
ITEM_FIELDS = ("id", "role", "content", "call_id", "name", "arguments", "output", "summary")
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(ITEM_TYPES)},
        optional=dict.fromkeys(ITEM_FIELDS, JSON),
    ),
    max_size=4,
)


@st.composite
def response_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A request for a response that is in order but for a few fields."""
    body: dict[str, Any] = {"model": SCRIPTED_MODEL, "input": "Hello", "max_output_tokens": 3}
    fields = st.lists(st.sampled_from(RESPONSE_FIELDS), min_size=1, max_size=4, unique=True)
    for name in draw(fields):
        body[name] = draw(ITEMS if name == "input" and draw(st.booleans()) else JSON)
    return body


BOUNDED = settings(
    max_examples=300 * FACTOR,
    deadline=None,
    derandomize=FACTOR == 1,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def client(mesh: MeshNotice) -> Any:
    with httpx.Client(base_url=mesh.base_url, timeout=60) as opened:
        yield opened


def check(answer: httpx.Response) -> None:
    """It is an answer of the API, or an error in its shape that is no bug of ours."""
    assert answer.status_code in ALLOWED, (answer.status_code, answer.text)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        *_, last, end = answer.text.split("\n\n")
        assert end == ""
        if last != "data: [DONE]":
            assert json.loads(last.removeprefix("data: "))["error"]["type"] != "server_error"
    else:
        assert answer.json()["choices"]


@BOUNDED
@given(path=st.sampled_from(PATHS), body=bodies())
def test_odd_fields(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    check(client.post(path, content=json.dumps(body)))


@settings(BOUNDED, max_examples=100 * FACTOR)
@given(
    path=st.sampled_from(TOKENIZATION_PATHS),
    body=st.dictionaries(st.sampled_from(TOKENIZATION_FIELDS), JSON | MESSAGES),
)
def test_odd_fields_of_tokenization(
    mesh: MeshNotice, client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    url = f"http://{mesh.grpc_address}{path}"
    answer = client.post(url, content=json.dumps({"model": SCRIPTED_MODEL, **body}))
    assert answer.status_code in ALLOWED, (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@settings(BOUNDED, max_examples=100 * FACTOR)
@given(body=response_bodies())
def test_odd_fields_of_responses(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/responses", content=json.dumps(body))
    assert answer.status_code in ALLOWED, (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert "server_error" not in answer.text
    else:
        response = answer.json()
        assert response["status"] in ("completed", "incomplete", "queued")
        if response["store"]:
            items = client.get(f"/responses/{response['id']}/input_items")
            assert items.status_code == 200, items.text


@BOUNDED
@given(path=st.sampled_from(PATHS), body=JSON)
def test_any_json(client: httpx.Client, path: str, body: Any) -> None:
    check(client.post(path, content=json.dumps(body)))


@BOUNDED
@given(path=st.sampled_from(PATHS), content=st.binary(max_size=200))
def test_any_bytes(client: httpx.Client, path: str, content: bytes) -> None:
    check(client.post(path, content=content, headers={"content-type": "application/json"}))


DEEP = 20_000


@pytest.mark.parametrize(
    "content",
    [
        '{"model": ' + "[" * DEEP + "]" * DEEP + "}",
        '{"messages": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}",
        json.dumps(
            {"model": SCRIPTED_MODEL, "messages": [{"role": "user", "content": "a" * 2**22}]}
        ),
        json.dumps(
            {"model": SCRIPTED_MODEL, "messages": [{"role": "user", "content": "a"}] * 20_000}
        ),
        json.dumps({"model": SCRIPTED_MODEL, "stop": ["x"] * 50_000, "prompt": "a"}),
        json.dumps({"model": "m" * 2**20, "messages": []}),
        '{"model": "\\ud800", "messages": []}',
        '{"max_tokens": 1e999, "messages": []}',
        '{"max_tokens": ' + "9" * 10_000 + "}",
        '{"model": "a", "model": "b"}',
    ],
    ids=[
        "deep list",
        "deep object",
        "huge",
        "many",
        "stops",
        "name",
        "half",
        "inf",
        "big",
        "twice",
    ],
)
def test_giants(client: httpx.Client, content: str) -> None:
    for path in PATHS:
        check(client.post(path, content=content))


def test_afterwards_nothing_is_held(mesh: MeshNotice, client: httpx.Client) -> None:
    """The last test of this file: what came before has left no request behind."""
    deadline_s = time.monotonic() + 60
    while (held := running(mesh)) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert held == 0
    body = {"model": SCRIPTED_MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    assert client.post("/chat/completions", json=body).status_code == 200


def running(mesh: MeshNotice) -> float:
    """Requests that gateways and workers say they carry."""
    total = 0.0
    for process in mesh.processes:
        if process.job in ("gateway", "worker"):
            url = f"http://{process.metrics_address}{process.metrics_path}"
            with urllib.request.urlopen(url) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(f"tokenmesh_{process.job}_requests_running"):
                        total += float(line.rpartition(" ")[2])
    return total
