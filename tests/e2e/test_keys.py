"""API keys at the edge: OpenAI's SDK, gRPC and gRPC-Web through Envoy; what the mesh lets out."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from services.cli.up.notice import MeshNotice
from services.gateway.keys.hashing import digest_of, hash_text, new_key
from services.gateway.keys.presented import HEADERS
from services.mesh import status
from tests.e2e.local_meshes import run
from tests.e2e.processes import running_envoy, running_mesh, wait_for
from tests.e2e.raw_clients import connected, read_until_closed, request
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc, model_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

MODEL = "org/scripted"
ALIAS = "alias"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
LIMIT_S = 30.0


@dataclass(frozen=True)
class Keyed:
    """A mesh, its file of keys, and the keys."""

    mesh: MeshNotice
    file: Path
    plain: str
    keys: dict[str, str]

    def knows_what_is_missing(self) -> bool:
        """Whether an unknown model is 404, as in `conftest`."""
        headers = {"authorization": f"Bearer {self.plain}"}
        body = {"model": "nobody", "messages": HELLO}
        url = f"{self.mesh.base_url}/chat/completions"
        return httpx.post(url, json=body, headers=headers).status_code == 404

    def client(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.mesh.base_url, api_key=key, max_retries=0)


def entries(keys: dict[str, str]) -> str:
    fields = {
        "alice": "",
        "narrow": f"models: ['{ALIAS}']",
        "elsewhere": "models: [other-*]",
        "twice": "requests_per_minute: 2\n  tokens_per_minute: 60000",
        "gone": "disabled: true",
        "slow": "tokens_per_minute: 1200",
    }
    return "keys:\n" + "".join(
        f"- name: {name}\n  hash: {hash_text(digest_of(key))}\n  {fields[name]}\n"
        for name, key in keys.items()
    )


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A mesh with keys of both sources, which logs all it can."""
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: new_key() for name in ("alice", "narrow", "elsewhere", "twice", "gone", "slow")}
    file = folder / "keys.yaml"
    file.write_text(entries(keys))
    plain = new_key()
    options = (
        *("--engine", "scripted", "--model-names", f"{MODEL},{ALIAS}", "--log-level", "debug"),
        *("--api-keys-file", str(file)),
    )
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TOKENMESH_API_KEYS", plain)
            notice = stack.enter_context(running_mesh(folder, *options))
        made = Keyed(notice, file, plain, keys)
        wait_for("it was known what is missing", made.knows_what_is_missing)
        yield made


def test_openai_s_client_enters_with_a_key(keyed: Keyed) -> None:
    for key in (keyed.plain, keyed.keys["alice"]):
        with keyed.client(key) as client:
            assert {model.id for model in client.models.list()} == {MODEL, ALIAS}
            answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
            assert answer.choices[0].message.content
            stream = client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=3, stream=True
            )
            assert len(list(stream)) > 1


@pytest.mark.parametrize("key", ["unknown", "gone", "short"])
def test_a_wrong_key_is_an_authentication_error(keyed: Keyed, key: str) -> None:
    text = {"unknown": new_key(), "gone": keyed.keys["gone"], "short": "sk-1"}[key]
    with keyed.client(text) as client, pytest.raises(openai.AuthenticationError) as caught:
        # What is wrong with the body is not said before the key is known.
        client.chat.completions.create(model=MODEL, messages=[], temperature=9)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )
    assert error.response.headers["www-authenticate"] == "Bearer"
    assert text not in error.response.text
    if key == "unknown":
        assert f"********{text[-4:]}" in error.message
    if key == "gone":
        assert "has been revoked" in error.message


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNzd29yZA=="},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
    ],
)
def test_no_key_is_an_authentication_error(keyed: Keyed, headers: dict[str, str]) -> None:
    for path in ("/models", "/models/x"):
        response = httpx.get(keyed.mesh.base_url + path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"] == {
            "message": "no API key was given: send it as the header 'authorization: Bearer KEY'",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }
    assert httpx.get(f"http://{keyed.mesh.grpc_address}/healthz").status_code == 200


def test_a_key_that_no_header_should_hold_is_refused(keyed: Keyed) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 1}
    for value in (b"Bearer \xc3\xa9\xff", b"Bearer " + b"k" * 40_000):
        with connected(keyed.mesh.grpc_address) as connection:
            head = request("/v1/chat/completions", body, "connection: close", "authorization: @")
            connection.sendall(head.replace(b"@", value))
            answer = read_until_closed(connection)
        assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400")), answer
        assert b"k" * 100 not in answer
    assert run("models", "--url", keyed.mesh.base_url.removesuffix("/v1")).returncode == 1


def test_azure_s_header_counts_too(keyed: Keyed) -> None:
    for name in ("api-key", "x-api-key"):
        headers = {name: keyed.keys["alice"]}
        assert httpx.get(f"{keyed.mesh.base_url}/models", headers=headers).status_code == 200


def test_models_that_a_key_may_not_use_are_not_told_from_none(keyed: Keyed) -> None:
    with keyed.client(keyed.keys["elsewhere"]) as client:
        assert list(client.models.list()) == []
        told: list[dict[str, Any]] = []
        for model in (MODEL, "nothing"):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                client.chat.completions.create(model=model, messages=HELLO)
            assert caught.value.type == "permission_error"
            assert caught.value.param == "model"
            told.append({**caught.value.response.json()["error"], "message": ""})
            with pytest.raises(openai.PermissionDeniedError):
                client.models.retrieve(model)
        assert told[0] == told[1]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other-model", messages=HELLO)
    with keyed.client(keyed.keys["narrow"]) as client:
        assert [model.id for model in client.models.list()] == [ALIAS]
        assert client.chat.completions.create(model=ALIAS, messages=HELLO, max_tokens=1)
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model=MODEL, messages=HELLO)


def test_a_key_over_its_rate_is_told_when_to_come_again(keyed: Keyed) -> None:
    with keyed.client(keyed.keys["twice"]) as client:
        first = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, max_tokens=3
        )
        headers = first.headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == "1"
        assert headers["x-ratelimit-limit-tokens"] == "60000"
        assert 59_000 < int(headers["x-ratelimit-remaining-tokens"]) < 60_000
        assert headers["x-tokenmesh-seed"]
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
    error = caught.value
    assert (error.type, error.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(error.response.headers["retry-after"]) <= 30
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert "2 requests per minute" in error.message


def test_a_stream_over_its_tokens_is_slowed_and_not_cut(keyed: Keyed) -> None:
    """20 a second, and 1200 at once: the prompt takes nearly all of them."""
    prompt = "word " * 1150
    with keyed.client(keyed.keys["slow"]) as client:
        stream = client.completions.create(
            model=MODEL,
            prompt=prompt,
            max_tokens=80,
            stream=True,
            stream_options={"include_usage": True},
        )
        *_, last = stream
    assert last.usage is not None
    assert last.usage.completion_tokens == 80
    assert last.usage.prompt_tokens > 1100
    (gateway,) = (each for each in keyed.mesh.processes if each.job == "gateway")
    page = httpx.get(f"http://{gateway.metrics_address}/metrics").text
    (paused,) = re.findall(r'key_paused_seconds_total\{key="slow"\} (\S+)', page)
    assert float(paused) > 0


def test_grpc_is_asked_for_the_same_keys(keyed: Keyed) -> None:
    chat = chat_pb2.ChatRequest(model=MODEL)
    chat.prompt.messages.add(
        role=mesh_chat_pb2.ROLE_USER, content=[mesh_chat_pb2.ContentPart(text="Hi")]
    )
    chat.sampling.max_tokens = 2
    with grpc.insecure_channel(keyed.mesh.grpc_address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)

        def ask(key: str | None) -> list[Any]:
            metadata = () if key is None else (("authorization", f"Bearer {key}"),)
            return list(stub.Chat(chat, metadata=metadata, timeout=LIMIT_S))

        assert ask(keyed.keys["alice"])[-1].HasField("completed")
        for key, code in (
            (None, "UNAUTHENTICATED"),
            (new_key(), "UNAUTHENTICATED"),
            (keyed.keys["elsewhere"], "PERMISSION_DENIED"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(key)
            assert status.from_rpc_error(caught.value).code == code


def test_grpc_web_is_asked_for_the_same_keys(keyed: Keyed) -> None:
    url = f"http://{keyed.mesh.grpc_address}/tokenmesh.gateway.v1.ModelService/ListModels"
    message = model_pb2.ListModelsRequest().SerializeToString()
    body = base64.b64encode(struct.pack(">BI", 0, len(message)) + message)
    headers = {"content-type": "application/grpc-web-text", "origin": "https://page.example"}
    refused = httpx.post(url, content=body, headers=headers)
    assert refused.headers["grpc-status"] == "16"
    assert "www-authenticate" in refused.headers["access-control-expose-headers"]
    headers["authorization"] = f"Bearer {keyed.keys['alice']}"
    answered = httpx.post(url, content=body, headers=headers)
    assert answered.headers.get("grpc-status", "0") == "0"
    assert MODEL.encode() in answered.content


def test_no_key_opens_what_services_say_to_each_other(keyed: Keyed) -> None:
    metadata = (("authorization", f"Bearer {keyed.plain}"),)
    with grpc.insecure_channel(keyed.mesh.grpc_address) as channel:
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        worker: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        for call, request_ in (
            (admin.ListWorkers, admin_pb2.ListWorkersRequest()),
            (admin.DrainWorker, admin_pb2.DrainWorkerRequest(worker_id="worker-1")),
            (worker.DescribeModels, worker_pb2.DescribeModelsRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request_, metadata=metadata, timeout=LIMIT_S)
            assert status.from_rpc_error(caught.value).code == "UNIMPLEMENTED", str(caught.value)


def test_commands_take_their_key_from_the_environment(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = keyed.mesh.base_url.removesuffix("/v1")
    # That one is for somebody else.
    monkeypatch.setenv("OPENAI_API_KEY", keyed.plain)
    refused = run("models", "--url", url)
    assert refused.returncode == 1
    assert "no API key was given" in refused.stderr
    assert "commands take it from TOKENMESH_API_KEY" in refused.stderr
    monkeypatch.setenv("TOKENMESH_API_KEY", keyed.keys["alice"])
    assert MODEL in run("models", "--url", url).stdout
    assert run("chat", "Hi", "--model", MODEL, "--max-tokens", "2", "--url", url).stdout.strip()


def test_a_revoked_key_enters_no_more_while_requests_run(keyed: Keyed) -> None:
    passing = new_key()
    before = keyed.file.read_text()
    line = f"- {{name: passing, hash: '{hash_text(digest_of(passing))}'}}\n"

    def write(text: str) -> None:
        partial = keyed.file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(keyed.file)

    def enters() -> bool:
        headers = {"authorization": f"Bearer {passing}"}
        return httpx.get(f"{keyed.mesh.base_url}/models", headers=headers).status_code == 200

    assert not enters()
    write(before + line)
    wait_for("the key counted", enters)
    with keyed.client(passing) as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=20_000, stream=True
        )
        chunks = iter(stream)
        next(chunks)
        write(before)
        wait_for("the key counted no more", lambda: not enters())
        assert next(chunks).choices
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        stream.close()


def test_nothing_that_the_mesh_lets_out_holds_a_key(keyed: Keyed, folder: Path) -> None:
    """After all of the above: its files, command lines, metrics, and what Envoy tells of itself."""
    mesh = keyed.mesh
    with keyed.client(keyed.keys["alice"]) as client:
        for body in ({"stop": 5}, {"model": 7}, {"messages": "x"}):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(
                    model=MODEL, messages=HELLO, extra_body=body, max_tokens=1
                )
    # gRPC itself logs what is no UTF-8: here a key with a byte too many.
    with connected(mesh.grpc_address) as connection:
        head = request("/v1/completions", {"model": MODEL}, "connection: close", "x-api-key: @")
        connection.sendall(head.replace(b"@", keyed.plain.encode() + b"\xff"))
        assert read_until_closed(connection).startswith(b"HTTP/1.1 401")
    log = Path(mesh.run_folder, "gateway.log")
    assert "a call's header is no UTF-8" in log.read_text()
    keyed.file.touch()
    wait_for("the file was read anew", lambda: "API keys were read anew" in log.read_text())
    (gateway,) = (each.process_id for each in mesh.processes if each.job == "gateway")
    (own,) = {
        part
        for part in _environment(gateway).get("TOKENMESH_API_KEYS", "").split(",")
        if part != keyed.plain
    } or {keyed.plain}
    secrets = [keyed.plain, own, *keyed.keys.values()]
    outputs = {
        **{
            str(path): path.read_bytes()
            for path in Path(mesh.run_folder).parent.rglob("*")
            if path.is_file() and path != keyed.file
        },
        **{
            url: httpx.get(url).content
            for each in mesh.processes
            for url in (f"http://{each.metrics_address}{each.metrics_path}",)
        },
        **{
            path: httpx.get(f"http://{mesh.envoy.metrics_address}{path}").content
            for path in ("/config_dump", "/stats", "/clusters", "/server_info", "/logging")
        },
        **{
            f"command line of {each.name}": Path(f"/proc/{each.process_id}/cmdline").read_bytes()
            for each in mesh.processes
        },
        **{
            f"environment of {each.name}": Path(f"/proc/{each.process_id}/environ").read_bytes()
            for each in mesh.processes
            if each.job != "gateway"
        },
    }
    assert len(outputs) > 15
    for what, content in outputs.items():
        for secret in secrets:
            assert secret.encode() not in content, what
            assert digest_of(secret).hex().encode() not in content, what
    access_log = folder / "access.log"
    with running_envoy(folder, mesh.addresses("gateway")[0], access_log_path=access_log) as edge:
        url = f"http://{edge.listen_host}:{edge.listen_port}/v1/models"
        for name in HEADERS:
            value = f"Bearer {keyed.plain}" if name == "authorization" else keyed.plain
            assert httpx.get(url, headers={name: value}).status_code == 200
    # Its log is whole once Envoy has ended.
    assert access_log.read_text().count("\n") == len(HEADERS)
    assert keyed.plain not in access_log.read_text()
    up = Path(mesh.run_folder).parent / "up.log"
    assert '-H "authorization: Bearer $TOKENMESH_API_KEY"' in up.read_text()


def _environment(process_id: int) -> dict[str, str]:
    text = Path(f"/proc/{process_id}/environ").read_bytes().decode()
    return dict(part.split("=", 1) for part in text.split("\0") if "=" in part)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("up", "--engine", "scripted", "--port", "0"), "no API keys are asked for: give some"),
        (("gateway", "--port", "0"), "no API keys are asked for: give some"),
        (("controller", "--port", "0"), "this port asks nobody for a key: listen on 127.0.0.1"),
        (("worker", "--engine", "scripted", "--port", "0"), "this port asks nobody for a key"),
    ],
)
def test_beyond_this_machine_nothing_starts_without_keys(
    command: tuple[str, ...], told: str, folder: Path
) -> None:
    done: subprocess.CompletedProcess[str] = run(*command, "--host", "0.0.0.0", folder=folder)
    assert done.returncode == 2
    assert told in done.stderr
    assert "--allow-anonymous" in done.stderr
