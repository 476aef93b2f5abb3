"""A mesh that is full says so, through Envoy: who waits, who is refused, whose time is up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.mesh.process import ReadyNotice
from tests.e2e.processes import answers_200, running_envoy, running_service, wait_for
from tests.e2e.raw_clients import connected, request

MODEL = "scripted"
CHAT = "/v1/chat/completions"
MAX_WAITING = 2
ADDRESS_FIELDS = ("x-forwarded-for", "x-envoy-external-address")
# One that runs, and one that waits at the worker to take its place.
AT_THE_WORKER = 2


@dataclass
class FullMesh:
    """A worker that runs one request at a time, which takes minutes."""

    address: str
    gateway: ReadyNotice
    worker: ReadyNotice

    def metric(self, service: ReadyNotice, name: str) -> float:
        lines = httpx.get(f"http://{service.metrics_address}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def has_waiting(self, number: int) -> bool:
        return self.metric(self.gateway, "tokenmesh_gateway_requests_waiting{") == number

    def has_at_the_worker(self, number: int) -> bool:
        running = self.metric(self.worker, "tokenmesh_worker_requests_running")
        return running + self.metric(self.worker, "tokenmesh_worker_requests_waiting") == number

    def ask(self, **headers: str) -> httpx.Response:
        return httpx.post(
            f"http://{self.address}{CHAT}", json=body(stream=False), headers=headers, timeout=60
        )


def body(*, stream: bool = True) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 2000,
        "ignore_eos": True,
        "stream": stream,
    }


@pytest.fixture
def full(folder: Path) -> Iterator[FullMesh]:
    with ExitStack() as stack:
        _, controller = stack.enter_context(running_service(folder, "controller"))
        watching = ("--controller", controller.address)
        slow = ("--scripted-token-interval-ms", "200", "--max-running", "1")
        _, worker = stack.enter_context(
            running_service(folder, "worker", *watching, "--engine", "scripted", *slow)
        )
        limits = ("--max-waiting", str(MAX_WAITING), "--grace-period", "0")
        _, gateway = stack.enter_context(running_service(folder, "gateway", *watching, *limits))
        edge = stack.enter_context(running_envoy(folder, gateway.address))
        address = f"127.0.0.1:{edge.listen_port}"
        model_url = f"http://{address}/v1/models/{MODEL}"
        wait_for("the model was served", lambda: answers_200(model_url))
        yield FullMesh(address, gateway, worker)


def error_of(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def test_a_full_mesh(full: FullMesh) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(full.address)) for _ in range(4)]
        for number, client in enumerate(clients[:AT_THE_WORKER], start=1):
            client.sendall(request(CHAT, body()))
            wait_for("it was with the worker", partial(full.has_at_the_worker, number))

        expired = full.ask(**{"x-request-timeout": "300ms"})
        assert expired.status_code == 504
        assert "queue" in error_of(expired)["message"]
        assert full.has_at_the_worker(AT_THE_WORKER)

        for number, client in enumerate(clients[AT_THE_WORKER:], start=1):
            client.sendall(request(CHAT, body()))
            wait_for("it waited", partial(full.has_waiting, number))
        refused = full.ask()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        error = error_of(refused)
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        assert full.metric(full.gateway, "tokenmesh_gateway_rejects_total") == 2

        clients[-1].close()
        wait_for("who left did not wait any more", partial(full.has_waiting, MAX_WAITING - 1))
        clients[0].close()
        wait_for("the next had its turn", partial(full.has_waiting, 0))
        assert full.has_at_the_worker(AT_THE_WORKER)


def test_nobody_fills_the_queue_for_others(full: FullMesh) -> None:
    """Callers are told apart by the address that Envoy sees, not by what they say of themselves."""
    greedy, modest = "127.0.0.1", "127.0.0.2"
    with ExitStack() as stack:
        for number in range(1, AT_THE_WORKER + 1):
            first = stack.enter_context(connected(full.address, greedy))
            first.sendall(request(CHAT, body()))
            wait_for("it was with the worker", partial(full.has_at_the_worker, number))
        for number in range(1, MAX_WAITING + 1):
            last = stack.enter_context(connected(full.address, greedy))
            last.sendall(request(CHAT, body() | {"user": f"invented-{number}"}))
            wait_for("it waited", partial(full.has_waiting, number))

        other = stack.enter_context(connected(full.address, modest))
        other.sendall(request(CHAT, body()))
        assert last.recv(65_536).startswith(b"HTTP/1.1 429 ")
        wait_for("the other waited", partial(full.has_waiting, MAX_WAITING))
        lying = stack.enter_context(connected(full.address, modest))
        lying.sendall(request(CHAT, body(), *(f"{name}: 9.9.9.9" for name in ADDRESS_FIELDS)))
        assert lying.recv(65_536).startswith(b"HTTP/1.1 429 ")
