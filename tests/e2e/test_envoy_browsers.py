"""What a page in a browser needs: CORS, and gRPC-Web."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import httpx
import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.processes import running_envoy
from tokenmesh.gateway.v1 import chat_pb2, model_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2

ORIGIN = "https://page.example"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}
TRAILERS_FLAG = 0x80


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/tokenmesh.gateway.v1.ChatService/Chat"]
)
def test_a_preflight_is_answered(mesh: MeshNotice, path: str) -> None:
    response = httpx.options(f"http://{mesh.grpc_address}{path}", headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert {"authorization", "*"} <= set(
        response.headers["access-control-allow-headers"].split(", ")
    )
    assert "access-control-allow-credentials" not in response.headers


def test_a_page_may_read_answers_errors_and_the_request_id(mesh: MeshNotice) -> None:
    for path in ("/models", "/models/none", "/nothing", "/completions"):
        response = httpx.get(f"{mesh.base_url}{path}", headers={"origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in response.headers["access-control-expose-headers"]


def test_origins_can_be_limited(mesh: MeshNotice, folder: Path) -> None:
    (gateway,) = mesh.addresses("gateway")
    with running_envoy(folder, gateway, cors_origin_regex=r"https://(a|b)\.example") as edge:
        url = f"http://{edge.listen_host}:{edge.listen_port}/v1/models"
        for origin, allowed in (("https://b.example", True), ("https://bxexample", False)):
            response = httpx.get(url, headers={"origin": origin})
            assert ("access-control-allow-origin" in response.headers) == allowed


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def frames_of(body: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        frames.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    return frames


def test_grpc_web(mesh: MeshNotice) -> None:
    message = mesh_chat_pb2.Message(
        role=mesh_chat_pb2.ROLE_USER, content=[mesh_chat_pb2.ContentPart(text="Hello")]
    )
    request = chat_pb2.ChatRequest(
        model=SCRIPTED_MODEL, prompt=mesh_chat_pb2.ChatPrompt(messages=[message])
    )
    response = httpx.post(
        f"http://{mesh.grpc_address}/tokenmesh.gateway.v1.ChatService/Chat",
        content=framed(request.SerializeToString()),
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/grpc-web+proto"
    *messages, (flag, trailers) = frames_of(response.content)
    assert flag == TRAILERS_FLAG
    assert b"grpc-status:0\r\n" in trailers
    events = [chat_pb2.ChatResponse.FromString(each) for _, each in messages]
    assert events[0].WhichOneof("event") == "started"
    assert events[-1].WhichOneof("event") == "completed"


def test_grpc_web_in_base64(mesh: MeshNotice) -> None:
    request = model_pb2.ListModelsRequest().SerializeToString()
    response = httpx.post(
        f"http://{mesh.grpc_address}/tokenmesh.gateway.v1.ModelService/ListModels",
        content=base64.b64encode(framed(request)),
        headers={
            "content-type": "application/grpc-web-text",
            "accept": "application/grpc-web-text",
        },
    )
    assert response.status_code == 200
    # Each flush is padded for itself.
    parts = response.text.replace("=", "= ").split()
    body = b"".join(base64.b64decode(part + "=" * (-len(part) % 4)) for part in parts)
    frames = frames_of(body)
    models = model_pb2.ListModelsResponse.FromString(frames[0][1]).models
    assert [served.model.name for served in models] == [SCRIPTED_MODEL]
    assert b"grpc-status:0\r\n" in frames[-1][1]


def test_grpc_web_errors(mesh: MeshNotice) -> None:
    request = model_pb2.GetModelRequest(model="nobody").SerializeToString()
    response = httpx.post(
        f"http://{mesh.grpc_address}/tokenmesh.gateway.v1.ModelService/GetModel",
        content=framed(request),
        headers={"content-type": "application/grpc-web+proto"},
    )
    assert response.headers["grpc-status"] == "5"
