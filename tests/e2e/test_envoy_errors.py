"""Every failure that Envoy itself answers is JSON in OpenAI's shape."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.processes import answers_200, running_envoy, running_service, wait_for

INVALID = "invalid_request_error"
JSON_HEADERS = {"content-type": "application/json"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, whose shape is checked."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize(
    ("body", "param", "code", "said"),
    [
        (b"{bad", None, None, "not the JSON of this call"),
        (b"", "model", "missing_required_parameter", "model"),
        (b"null", None, None, "It must be an object."),
        (b"[1]", None, None, "It must be an object."),
        (b'{"model": "m"} x', None, None, "Parsing terminated"),
        (b'{"model": "\xff"}', None, None, "UTF-8"),
        (b'{"model": 5}', "model", "invalid_type", "expected a string, but got 5."),
        (b'{"model": {"a": 1}}', "model", "invalid_type", "but got an object."),
        (b'{"model": ["m"]}', None, None, "A list stands where"),
        (b'{"temperature": "hot"}', "temperature", "invalid_type", 'a number, but got "hot".'),
        (b'{"max_tokens": 1.5}', "max_tokens", "invalid_type", "an integer of 64 bits"),
        (b'{"n": 99999999999}', "n", "invalid_type", "an integer of 32 bits"),
        (b'{"stream": "maybe"}', "stream", "invalid_type", "true or false"),
        (b'{"stop_token_ids": ["x"]}', "stop_token_ids[0]", "invalid_type", "an integer"),
        (b'{"tools": [{"a": 1, "a": 2}]}', "tools", "duplicate_key", "the key 'a'"),
        (
            b'{"model": "m", "logit_bias": 5}',
            "logit_bias",
            "invalid_type",
            "an object, but got a number.",
        ),
        (
            b'{"stream_options": {"include_usage": "x"}}',
            "stream_options.include_usage",
            "invalid_type",
            "true or false",
        ),
    ],
)
def test_a_body_that_is_not_the_calls_json(
    mesh: MeshNotice, body: bytes, param: str | None, code: str | None, said: str
) -> None:
    url = f"{mesh.base_url}/chat/completions"
    response = httpx.post(url, content=body, headers=JSON_HEADERS)
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"], error["code"]) == (INVALID, param, code)
    assert said in error["message"]


@pytest.mark.parametrize("nesting", [('{"a":', "}"), ("[", "]")])
@pytest.mark.parametrize("depth", [60, 99, 100, 20_000])
def test_json_that_is_nested_too_deep(
    mesh: MeshNotice, nesting: tuple[str, str], depth: int
) -> None:
    opening, closing = nesting
    nested = f"{opening * depth}1{closing * depth}"
    for path, field in (("/v1/chat/completions", "response_format"), ("/tokenize", "documents")):
        content = f'{{"model": "m", "{field}": {nested}}}'
        response = httpx.post(f"http://{mesh.grpc_address}{path}", content=content)
        assert response.status_code == 400
        error = error_of(response)
        assert (error["type"], error["code"]) == (INVALID, "nested_too_deep")
        assert "nested too deep" in error["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/audio/speech",
        "/v2/chat/completions",
        "/tokenmesh.openai.v1.ModelService/ListModels",
        "/tokenmesh.worker.v1.WorkerService/DescribeModels",
        "/tokenmesh.controller.v1.AdminService/ListWorkers",
        "/tokenmesh.gateway.v1.ModelService/ListModels",
        "/grpc.channelz.v1.Channelz/GetServers",
        '/v1/"quoted"',
    ],
)
def test_an_unknown_url(mesh: MeshNotice, path: str) -> None:
    response = httpx.post(f"http://{mesh.grpc_address}{path}", json={})
    error = error_of(response)
    assert response.status_code == 404
    assert (error["type"], error["code"]) == (INVALID, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/chat/completions", "POST"),
        ("GET", "/chat/completions/", "POST"),
        ("PUT", "/completions", "POST"),
        ("GET", "/../tokenize", "POST"),
        ("DELETE", "/../detokenize", "POST"),
        ("PATCH", "/../api/v1/token_check", "POST"),
        ("POST", "/models", "GET"),
        ("DELETE", "/models/org/scripted", "GET"),
        ("GET", "/responses", "POST"),
        ("POST", "/responses/resp_1", "GET, DELETE"),
        ("GET", "/responses/resp_1/cancel", "POST"),
        ("POST", "/responses/resp_1/input_items", "GET"),
    ],
)
def test_a_wrong_method(mesh: MeshNotice, method: str, path: str, allowed: str) -> None:
    response = httpx.request(method, f"{mesh.base_url}{path}")
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert error_of(response)["code"] == "method_not_supported"


def test_a_body_that_is_too_large(mesh: MeshNotice) -> None:
    content = b'{"model": "' + b"x" * (33 * 1024 * 1024) + b'"}'
    response = httpx.post(f"{mesh.base_url}/chat/completions", content=content, timeout=60)
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


def test_headers_that_are_too_large(mesh: MeshNotice) -> None:
    response = httpx.get(f"{mesh.base_url}/models", headers={"x-long": "x" * 70_000})
    assert response.status_code == 431
    assert error_of(response)["type"] == INVALID


def test_what_is_not_http(mesh: MeshNotice) -> None:
    host, _, port = mesh.grpc_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == INVALID


def test_every_answer_has_a_request_id_and_a_clients_own_is_kept(mesh: MeshNotice) -> None:
    for path in ("/models", "/models/none", "/nothing"):
        made = httpx.get(f"{mesh.base_url}{path}").headers.get_list("x-request-id")
        assert len(made) == 1
        assert made[0]
        kept = httpx.get(f"{mesh.base_url}{path}", headers={"x-request-id": "mine-1"})
        assert kept.headers.get_list("x-request-id") == ["mine-1"]


def test_the_gateways_grpc_leaves_no_trace_in_http(mesh: MeshNotice) -> None:
    for path in ("/models", "/models/none"):
        response = httpx.get(f"{mesh.base_url}{path}")
        assert not [name for name in response.headers if name.startswith(("grpc-", "x-envoy-"))]


def test_a_gateway_that_is_killed_and_comes_back(mesh: MeshNotice, folder: Path) -> None:
    (controller,) = mesh.addresses("controller")
    watching = ("--controller", controller)
    with (
        running_service(folder, "gateway", *watching) as (process, gateway),
        running_envoy(folder, gateway.address) as edge,
    ):
        base_url = f"http://{edge.listen_host}:{edge.listen_port}"
        wait_for("Envoy found the gateway well", lambda: answers_200(f"{base_url}/healthz"))
        assert httpx.get(f"{base_url}/v1/models").status_code == 200

        process.send(signal.SIGKILL)
        process.wait()
        for response in (
            httpx.get(f"{base_url}/v1/models"),
            httpx.post(f"{base_url}/v1/chat/completions", json={"model": "m"}),
        ):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert error_of(response)["type"] == "server_error"
        wait_for("Envoy missed the gateway", lambda: not answers_200(f"{base_url}/healthz"))
        assert httpx.get(f"{base_url}/healthz").status_code == 503

        port = gateway.address.rpartition(":")[2]
        with running_service(folder, "gateway", *watching, "--port", port, name="successor"):
            wait_for("Envoy found it again", lambda: answers_200(f"{base_url}/v1/models"))


def test_metrics_and_nothing_else_of_the_admin_interface(mesh: MeshNotice, folder: Path) -> None:
    (gateway,) = mesh.addresses("gateway")
    with running_envoy(folder, gateway) as edge:
        metrics_url = f"http://{edge.metrics_host}:{edge.metrics_port}"
        metrics = httpx.get(f"{metrics_url}/metrics").text
        assert "envoy_cluster_upstream_rq_total" in metrics
        assert httpx.get(f"{metrics_url}/config_dump").status_code == 404
        assert httpx.post(f"{metrics_url}/metrics").status_code == 404
        assert httpx.get(f"{metrics_url}/quitquitquit").status_code == 404


def test_the_access_log_is_json(mesh: MeshNotice, folder: Path) -> None:
    (gateway,) = mesh.addresses("gateway")
    log_file = folder / "access.log"
    with running_envoy(folder, gateway, access_log_path=log_file) as edge:
        url = f"http://{edge.listen_host}:{edge.listen_port}/v1/models"
        httpx.get(url, headers={"x-request-id": "logged-1"}).raise_for_status()
    (line,) = log_file.read_text().splitlines()
    entry = json.loads(line)
    assert entry["request_id"] == "logged-1"
    assert entry["response_code"] == 200
    assert entry["path"] == "/v1/models"
