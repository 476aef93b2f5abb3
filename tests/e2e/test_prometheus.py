"""A real Prometheus beside a real mesh: every query of every panel, rule and alert has data."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.cli.up.notice import MeshNotice
from services.gateway.keys.hashing import digest_of, hash_text, new_key
from services.mesh.channels import open_channel
from services.mesh.process import ReadyNotice, read_ready
from tests import monitoring
from tests.e2e.local_meshes import SCRIPTED, starting
from tests.encoders import encoder
from tests.models import checkpoint
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc

SCRAPE_INTERVAL_S = 1
WHOLE_KEY = new_key()
NARROW_KEY = new_key()
# In place of what Grafana fills in: rates need a few scrapes.
VARIABLES = {"$__rate_interval": "1m", "$model": ".*", "$worker": ".*"}
LEASES_EXPIRED = 'tokenmesh_controller_lease_events_total{event="expired"}'
DATA_LIMIT_S = 60.0
POLL_INTERVAL_S = 0.5
PROCESS_LIMIT_S = 90.0
FLOOD_CLIENTS = 600
"""More than run and may wait in a gateway."""

# Few places and a slow start, so that requests wait and are refused.
WORKER_OPTIONS = (
    *("--limit-worker-concurrency", "4", "--max-waiting", "4"),
    *("--scripted-prefill-ms", "50", "--scripted-token-interval-ms", "5"),
)

# It is killed before it comes to a first token, so what it has must be retried.
DOOMED_OPTIONS = ("--engine", "scripted", "--scripted-prefill-ms", "600000")
# Phases, blocks and preemptions are those of an engine that computes a model.
REAL = "real"
LONG = "The quick brown fox jumps over the lazy dog. " * 4
REAL_OPTIONS = (
    *("--model-path", str(checkpoint()), "--model-names", REAL, "--device", "cpu"),
    *("--threads", "1"),
)
ENCODER = "encoder"
ENCODER_OPTIONS = (
    *("--model-path", str(encoder()), "--model-names", ENCODER, "--device", "cpu"),
    *("--threads", "1"),
)


@pytest.fixture
def watched_mesh(tmp_path: Path) -> Iterator[MeshNotice]:
    """A mesh of two workers, which asks for keys."""
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"keys:\n- name: whole\n  hash: {hash_text(digest_of(WHOLE_KEY))}\n"
        "  expires: 2099-01-01\n"
        f"- name: narrow\n  hash: {hash_text(digest_of(NARROW_KEY))}\n  tokens_per_minute: 60\n"
    )
    options = (*SCRIPTED, "--workers", "2", "--api-keys-file", str(file))
    with starting(tmp_path, *options, "--", *WORKER_OPTIONS) as up:
        yield up.until_ready()


class Prometheus:
    """The API of a Prometheus server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: str) -> Any:
        response = await self._client.get(f"/api/v1/{path}", params=parameters)
        content = response.json()
        assert content["status"] == "success", content
        return content["data"]

    async def series(self, expr: str) -> list[dict[str, str]]:
        """The labels of what an expression selects just now and that has a number."""
        data = await self.get("query", query=expr)
        assert data["resultType"] == "vector"
        return [
            sample["metric"]
            for sample in data["result"]
            if not math.isnan(float(sample["value"][1]))
        ]


@asynccontextmanager
async def prometheus(run_folder: Path) -> AsyncIterator[Prometheus]:
    """Prometheus as scripts/prometheus.sh starts it, scraping once a second."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = monitoring.ROOT / "scripts" / "prometheus.sh"
    process = await asyncio.create_subprocess_exec(
        script, run_folder, str(port), f"{SCRAPE_INTERVAL_S}s", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PROCESS_LIMIT_S
        ) as client:
            async with asyncio.timeout(PROCESS_LIMIT_S):
                while not await is_ready(client):
                    assert process.returncode is None, "Prometheus ended"
                    await asyncio.sleep(POLL_INTERVAL_S)
            yield Prometheus(client)
    finally:
        process.terminate()
        await process.wait()


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def worker_beside(
    mesh: MeshNotice, name: str, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, ReadyNotice]]:
    """One more worker of the mesh, which Prometheus scrapes as well and which may be killed."""
    folder = Path(mesh.run_folder)
    ready_file = folder / f"{name}.ready.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.worker", "--port", "0", "--worker-id", name),
        *("--controller", mesh.addresses("controller")[0]),
        *("--ready-file", str(ready_file), *options),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PROCESS_LIMIT_S):
            while (ready := read_ready(ready_file)) is None:
                assert process.returncode is None, "the worker ended"
                await asyncio.sleep(POLL_INTERVAL_S)
        targets = folder / "prometheus" / "targets" / f"{name}.json"
        labels = {"job": "worker", "process": name}
        targets.parent.mkdir(parents=True, exist_ok=True)
        targets.write_text(json.dumps([{"targets": [ready.metrics_address], "labels": labels}]))
        yield process, ready
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def keep_asking(client: httpx.AsyncClient, model: str) -> None:
    """Chats and completions, streamed and not, and what clients get wrong, until cancelled."""
    chat = {"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20}
    while True:
        await client.post("/chat/completions", json=chat | {"stream": True})
        await client.post("/chat/completions", json=chat)
        await client.post("/completions", json={"model": model, "prompt": "Once", "max_tokens": 9})
        await client.post("/chat/completions", json=chat | {"model": "no-such-model"})
        await client.post("/chat/completions", json=chat | {"temperature": 9})
        await client.post("/completions", json={"model": REAL, "prompt": LONG, "max_tokens": 9})
        held = {"model": REAL, "prompt": "Once", "guided_regex": "[a-z]{3}"}
        await client.post("/completions", json=held)
        await client.post("/embeddings", json={"model": ENCODER, "input": "Once"})


async def keep_asking_too_much(client: httpx.AsyncClient, model: str) -> None:
    """With a key that is held back and refused, until cancelled."""
    fields = {"model": model, "prompt": "Once", "max_tokens": 20}
    while True:
        await client.post("/completions", json=fields, headers=bearer(NARROW_KEY))
        await asyncio.sleep(0.1)


async def keep_completing(client: httpx.AsyncClient, model: str, seen: set[int]) -> None:
    """One completion after another, until cancelled. Notes the answers' status."""
    fields = {"model": model, "prompt": "Once", "max_tokens": 100}
    while True:
        seen.add((await client.post("/completions", json=fields)).status_code)


@asynccontextmanager
async def flooding(client: httpx.AsyncClient, model: str) -> AsyncIterator[set[int]]:
    """Within it, the mesh has more to do than it can. The set fills with what it answers."""
    seen: set[int] = set()
    async with asyncio.TaskGroup() as tasks:
        clients = [
            tasks.create_task(keep_completing(client, model, seen)) for _ in range(FLOOD_CLIENTS)
        ]
        yield seen
        for each in clients:
            each.cancel()


async def until_answered(seen: set[int], status_code: int) -> None:
    """Returns when some answer has had the status code."""
    try:
        async with asyncio.timeout(PROCESS_LIMIT_S):
            while status_code not in seen:
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"no answer had {status_code}, only {seen}")


async def drain_workers(mesh: MeshNotice, client: httpx.AsyncClient, model: str) -> None:
    """Has streams move off a worker, twice; then drains all until a request finds none.

    All serve again in the end.
    """
    async with open_channel(mesh.addresses("controller")[0]) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)

        async def drain(worker_id: str) -> None:
            await admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id=worker_id))

        async def resume(worker_id: str) -> None:
            await admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id=worker_id))

        listed = await admin.ListWorkers(admin_pb2.ListWorkersRequest())
        ids = [worker.worker_id for worker in listed.workers]
        async with flooding(client, model) as seen:
            await until_answered(seen, 200)
            # What happens once is in the first scrape already, and no increase.
            for _ in range(2):
                for worker_id in ids:
                    await drain(worker_id)
                    await asyncio.sleep(2 * SCRAPE_INTERVAL_S)
                    await resume(worker_id)
            for worker_id in ids:
                await drain(worker_id)
            await until_answered(seen, 503)
        for worker_id in ids:
            await resume(worker_id)


def filled_in(expr: str) -> str:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


class Unanswered:
    """The queries that have returned no data yet, and what was wrong with each.

    What happens once is in a rate for a minute only, so that no moment shows all of them.
    """

    def __init__(self, server: Prometheus) -> None:
        self._server = server
        self._queries = _queries()
        self.wrong: dict[str, str] = {"all": "not asked yet"}

    async def look(self) -> None:
        """Asks those that are left."""
        answers = {
            query: await lacking(self._server, *query, labels)
            for query, labels in self._queries.items()
        }
        self._queries = {query: self._queries[query] for query, wrong in answers.items() if wrong}
        self.wrong = {key: what for wrong in answers.values() for key, what in wrong.items()}

    async def watch(self) -> None:
        """Asks until there are none."""
        while self.wrong:
            await self.look()
            await asyncio.sleep(POLL_INTERVAL_S)


def _queries() -> dict[tuple[str, str], frozenset[str]]:
    """Who asks what, and the labels that some answer must have."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for rule in monitoring.rules():
        names = monitoring.compared_signals(rule.expr) if rule.is_alert else [rule.name, rule.expr]
        labels = set() if rule.is_alert else monitoring.grouping_labels(rule.expr)
        for expr in names:
            found[rule.name, expr] = frozenset(labels)
    for query in monitoring.panel_queries():
        found[query.panel, filled_in(query.expr)] = frozenset(query.legend_labels)
    return found


async def lacking(
    server: Prometheus, who: str, expr: str, labels: frozenset[str]
) -> dict[str, str]:
    series = await server.series(expr)
    if not series:
        return {f"{who}: {expr}": "no data"}
    missing = {label for label in labels if not any(each.get(label) for each in series)}
    return {f"{who}: {expr}": f"no label {sorted(missing)}"} if missing else {}


async def until_selected(server: Prometheus, expr: str) -> None:
    """Returns when the expression selects something."""
    async with asyncio.timeout(DATA_LIMIT_S):
        while not await server.series(expr):
            await asyncio.sleep(POLL_INTERVAL_S)


async def until_it_runs_a_request(worker: ReadyNotice) -> None:
    """Returns when the worker has a request."""
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        asyncio.timeout(PROCESS_LIMIT_S),
    ):
        while True:
            page = (await client.get(f"http://{worker.metrics_address}/metrics")).text
            if "tokenmesh_worker_requests_running 0.0" not in page:
                return
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_query_of_every_panel_and_rule_returns_data(watched_mesh: MeshNotice) -> None:
    async with (
        worker_beside(watched_mesh, "real", *REAL_OPTIONS),
        worker_beside(watched_mesh, "encoder", *ENCODER_OPTIONS),
        worker_beside(watched_mesh, "doomed", *DOOMED_OPTIONS) as (doomed, ready),
        httpx.AsyncClient(
            base_url=watched_mesh.base_url,
            headers=bearer(WHOLE_KEY),
            trust_env=False,
            timeout=120,
            limits=httpx.Limits(max_connections=None),
        ) as client,
        prometheus(Path(watched_mesh.run_folder)) as server,
    ):
        (model,) = watched_mesh.models

        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(keep_asking(client, model))
            asking_too_much = tasks.create_task(keep_asking_too_much(client, model))
            unanswered = Unanswered(server)
            watching = tasks.create_task(unanswered.watch())
            # Only what happens after a first look is an increase.
            await until_selected(server, f"count_over_time({LEASES_EXPIRED}[1m]) > 1")
            await drain_workers(watched_mesh, client, model)
            async with flooding(client, model) as seen:
                await until_it_runs_a_request(ready)
                doomed.kill()
                await until_answered(seen, 429)
            try:
                async with asyncio.timeout(DATA_LIMIT_S):
                    await asyncio.shield(watching)
            except TimeoutError:
                pytest.fail(json.dumps(unanswered.wrong, indent=2))
            finally:
                for task in (asking, asking_too_much, watching):
                    task.cancel()

        for group in (await server.get("rules"))["groups"]:
            for rule in group["rules"]:
                assert rule["health"] == "ok", rule
        await until_selected(server, 'ALERTS{alertname="WorkerLost", alertstate="firing"}')
        for name, label, metric in variables():
            assert await server.get(f"label/{label}/values", **{"match[]": metric}), name


def variables() -> list[tuple[str, str, str]]:
    """Name, label and metric of each variable of the dashboard that lists values."""
    found = []
    for variable in monitoring.dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            inner = variable["definition"].removeprefix("label_values(").removesuffix(")")
            metric, label = inner.split(", ")
            found.append((variable["name"], label, metric))
    return found
