"""Clients that leave, dawdle or never stop: they cost themselves, and nobody else.

The bounds on memory are generous: they tell a buffer that grows with what was not read, or with
the number of clients, from one that does not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from services.cli.up import envoy
from services.cli.up.preflight import claim_port
from services.mesh.channels import open_channel
from services.mesh.process import ReadyNotice
from tests.e2e.processes import Process, answers_200, running_service, wait_for
from tests.e2e.raw_clients import connected, head, read_until_closed, request
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2

MODEL = "scripted"
CHAT = "/v1/chat/completions"
BODY_LIMIT_S = 2
MANY_STREAMS = 2048
STREAMS_PER_CONNECTION = 1024
SILENT_CLIENTS = 24
SLOW_MODEL = "slow"
# With log probabilities, some 2 KiB each: sockets and buffers on the way take in some MiB.
SLOWLY_READ_TOKENS = 1500
LIMIT_S = 90.0
MIB = 1024 * 1024
GROWTH_LIMIT_BYTES = 300 * MIB


@dataclass
class Edge:
    """A small mesh whose processes can be looked at."""

    address: str
    gateway: Process
    envoy: Process
    worker: ReadyNotice
    gateway_notice: ReadyNotice

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def worker_metric(self, name: str) -> float:
        return metric(self.worker, name)

    def is_idle(self) -> bool:
        """Whether neither the worker nor the gateway holds a request."""
        return not (
            self.worker_metric("tokenmesh_worker_requests_running")
            or self.worker_metric("tokenmesh_worker_requests_waiting")
            or metric(self.gateway_notice, "tokenmesh_gateway_requests_running")
            or metric(self.gateway_notice, "tokenmesh_gateway_requests_waiting")
        )


def metric(service: ReadyNotice, name: str) -> float:
    """The sum over all samples of a metric."""
    lines = httpx.get(f"http://{service.metrics_address}/metrics").text.splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith((name + "{", name + " "))]
    return sum(float(value) for _, _, value in samples)


def memory_bytes(process: Process) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{process.process_id}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("edge")
    with ExitStack() as stack:
        _, controller = stack.enter_context(running_service(folder, "controller"))
        watching = ("--controller", controller.address)
        worker_options = (
            *("--engine", "scripted", "--scripted-token-interval-ms", "1"),
            *("--scripted-answer-tokens", "0"),
        )
        _, worker = stack.enter_context(
            running_service(folder, "worker", *watching, *worker_options)
        )
        slow_options = (
            *("--engine", "scripted", "--scripted-token-interval-ms", "500"),
            *("--max-running", str(2 * MANY_STREAMS), "--model-names", SLOW_MODEL),
        )
        stack.enter_context(
            running_service(folder, "worker", *watching, *slow_options, name="slow-worker")
        )
        gateway, gateway_notice = stack.enter_context(
            running_service(folder, "gateway", *watching, "--max-requests", str(2 * MANY_STREAMS))
        )
        host, _, port = gateway_notice.address.rpartition(":")
        settings = envoy.EnvoySettings(
            listen_host="127.0.0.1",
            listen_port=claim_port("127.0.0.1", 0),
            gateway_host=host,
            gateway_port=int(port),
            admin_port=claim_port("127.0.0.1", 0),
            metrics_port=claim_port("127.0.0.1", 0),
            threads=1,
        )
        configuration = envoy.configuration(settings)
        assert "request_timeout: 60s" in configuration
        configuration_file = folder / "envoy.yaml"
        configuration_file.write_text(
            configuration.replace("request_timeout: 60s", f"request_timeout: {BODY_LIMIT_S}s")
        )
        process = Process(envoy.command(settings, configuration_file), folder / "envoy.log")
        stack.callback(process.stop)
        address = f"127.0.0.1:{settings.listen_port}"
        for model in (MODEL, SLOW_MODEL):
            url = f"http://{address}/v1/models/{model}"
            process.until("Envoy served", partial(answers_200, url))
        yield Edge(address, gateway, process, worker, gateway_notice)


def chat(tokens: int, **more: object) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell me a story"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "seed": 7,
        "stream": True,
        **more,
    }


LARGE_EVENTS = {"logprobs": True, "top_logprobs": 20}


def answer(edge: Edge, tokens: int = 200, **more: object) -> str:
    """What a client that behaves is told, whatever others do."""
    with httpx.stream("POST", edge.url + CHAT, json=chat(tokens, **more), timeout=60) as response:
        assert response.status_code == 200, response.read()
        return text_of(line for line in response.iter_lines())


def text_of(lines: Iterator[str]) -> str:
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"] for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for each in deltas for choice in each)


def error_of(response: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.partition(b"\r\n\r\n")[2])["error"]
    return found


def test_a_body_that_never_ends_is_cut_off(edge: Edge) -> None:
    with connected(edge.address) as trickling, connected(edge.address) as silent:
        trickling.sendall(head(CHAT, "content-length: 100000"))
        silent.sendall(head(CHAT, "transfer-encoding: chunked") + b'5\r\n{"mod')
        trickling.settimeout(0.2)
        received = b""
        while not received:
            trickling.sendall(b" ")
            try:
                received = trickling.recv(65_536)
            except TimeoutError:
                continue
        trickling.settimeout(60)
        for response in (received + read_until_closed(trickling), read_until_closed(silent)):
            assert response.startswith(b"HTTP/1.1 408 ")
            assert error_of(response)["type"] == "timeout"


def test_a_body_that_is_too_large_is_refused_whatever_it_says_of_its_length(edge: Edge) -> None:
    before = memory_bytes(edge.gateway)
    with connected(edge.address) as connection:
        connection.sendall(head(CHAT, "transfer-encoding: chunked"))
        piece = b"100000\r\n" + b" " * MIB + b"\r\n"
        try:
            for _ in range(40):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        response = read_until_closed(connection)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert error_of(response)["code"] == "request_too_large"
    assert memory_bytes(edge.gateway) - before < GROWTH_LIMIT_BYTES


def test_a_stream_is_no_body(edge: Edge) -> None:
    """The limit on a request's body does not end an answer that takes longer."""
    assert len(answer(edge, tokens=2500).split()) > 1000


async def test_a_held_conversation_may_be_silent_for_longer_than_a_body(edge: Edge) -> None:
    async with open_channel(edge.address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        call = stub.Converse()
        await call.wait_for_connection()
        await asyncio.sleep(BODY_LIMIT_S + 1)
        opening = chat_pb2.ConverseRequest.Open(model=MODEL)
        opening.sampling.max_tokens = 3
        await call.write(chat_pb2.ConverseRequest(open=opening))
        turn = chat_pb2.ConverseRequest.Turn(number=1, messages=[user_message("Hi")])
        await call.write(chat_pb2.ConverseRequest(turn=turn))
        await call.done_writing()
        events = [response.WhichOneof("event") async for response in call]
    assert events[-1] == "completed"


def user_message(text: str) -> mesh_chat_pb2.Message:
    part = mesh_chat_pb2.ContentPart(text=text)
    return mesh_chat_pb2.Message(role=mesh_chat_pb2.ROLE_USER, content=[part])


def test_who_leaves_stops_the_work_behind_it(edge: Edge) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connected(edge.address))
            connection.sendall(request(CHAT, chat(30_000)))
            assert connection.recv(1024).startswith(b"HTTP/1.1 200")
        assert edge.worker_metric("tokenmesh_worker_requests_running") == 20
    wait_for("the work stopped", edge.is_idle)


def test_who_reads_nothing_costs_little_and_slows_nobody(edge: Edge) -> None:
    undisturbed = answer(edge)
    before = [memory_bytes(process) for process in (edge.gateway, edge.envoy)]
    with ExitStack() as stack:
        for _ in range(SILENT_CLIENTS):
            connection = stack.enter_context(connected(edge.address))
            connection.sendall(request(CHAT, chat(30_000, **LARGE_EVENTS)))
        wait_for(
            "all had begun",
            lambda: edge.worker_metric("tokenmesh_worker_requests_running") == SILENT_CLIENTS,
        )
        for _ in range(5):
            assert answer(edge) == undisturbed
        wait_for("their work paused", lambda: has_paused(edge))
        after = [memory_bytes(process) for process in (edge.gateway, edge.envoy)]
        assert [new - old < GROWTH_LIMIT_BYTES for new, old in zip(after, before, strict=True)] == [
            True,
            True,
        ], (before, after)
        assert answer(edge) == undisturbed
    wait_for("the work stopped", edge.is_idle)


def has_paused(edge: Edge) -> bool:
    """Whether the worker makes no more tokens for those who do not read them."""
    made = edge.worker_metric("tokenmesh_worker_tokens_total")
    time.sleep(0.3)
    return edge.worker_metric("tokenmesh_worker_tokens_total") == made


def test_who_reads_slowly_gets_all_of_it(edge: Edge) -> None:
    expected = answer(edge, SLOWLY_READ_TOKENS, **LARGE_EVENTS)
    with connected(edge.address) as connection:
        connection.sendall(request(CHAT, chat(SLOWLY_READ_TOKENS, **LARGE_EVENTS)))
        received = bytearray()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += connection.recv(8192)
    assert text_of(iter(unchunked(bytes(received)).decode().splitlines())) == expected


def unchunked(response: bytes) -> bytes:
    rest = response.partition(b"\r\n\r\n")[2]
    body = bytearray()
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not (length := int(size, 16)):
            return bytes(body)
        body += rest[:length]
        rest = rest[length + 2 :]


def slow_request() -> chat_pb2.ChatRequest:
    asked = chat_pb2.ChatRequest(model=SLOW_MODEL)
    asked.prompt.messages.append(user_message("Hi"))
    asked.sampling.max_tokens = 2000
    asked.sampling.ignore_eos = True
    return asked


async def test_thousands_of_streams_at_once(edge: Edge) -> None:
    before = [memory_bytes(process) for process in (edge.gateway, edge.envoy)]
    async with open_channel(edge.address) as first, open_channel(edge.address) as second:
        stubs: list[Any] = [chat_pb2_grpc.ChatServiceStub(each) for each in (first, second)]
        calls = [stub.Chat(slow_request()) for stub in stubs for _ in range(STREAMS_PER_CONNECTION)]
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(call.read() for call in calls))
        # None of them is read any more.
        text = await asyncio.to_thread(answer, edge)
        assert text == await asyncio.to_thread(answer, edge)
        after = [memory_bytes(process) for process in (edge.gateway, edge.envoy)]
        growth = [new - old for new, old in zip(after, before, strict=True)]
        assert max(growth) < GROWTH_LIMIT_BYTES, growth
        for call in calls:
            call.cancel()
    await asyncio.to_thread(wait_for, "the work stopped", edge.is_idle)


async def test_a_connection_carries_so_many_streams_and_no_more(edge: Edge) -> None:
    """What goes beyond waits at the client, and others are served meanwhile."""
    async with open_channel(edge.address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        calls = [stub.Chat(slow_request()) for _ in range(STREAMS_PER_CONNECTION + 50)]
        reads = [asyncio.ensure_future(call.read()) for call in calls]
        async with asyncio.timeout(LIMIT_S):
            while sum(read.done() for read in reads) < STREAMS_PER_CONNECTION:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(answer, edge)
        assert sum(read.done() for read in reads) == STREAMS_PER_CONNECTION
        for call in calls:
            call.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
    await asyncio.to_thread(wait_for, "the work stopped", edge.is_idle)


async def test_an_oversized_grpc_message_is_refused(edge: Edge) -> None:
    big = slow_request()
    big.prompt.messages[0].content[0].text = "x" * (65 * MIB)
    async with open_channel(edge.address, [("grpc.max_send_message_length", -1)]) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Chat(big).read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await asyncio.to_thread(answer, edge)
