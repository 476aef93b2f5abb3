"""Streams that do not end well: deadlines, dead workers, clients that leave, full queues."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.cli.up.notice import MeshNotice
from tests.e2e.processes import running_envoy, running_mesh, running_service, wait_for

ENDLESS_MODEL = "endless"
DOOMED_MODEL = "doomed"
ENDLESS = ("--scripted-answer-tokens", "0", "--scripted-token-interval-ms", "20")
MAX_RUNNING = 2


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshNotice]:
    """One worker that talks for minutes, to few clients at once."""
    limits = ("--max-running", str(MAX_RUNNING))
    options = ("--engine", "scripted", "--model-names", ENDLESS_MODEL, "--", *ENDLESS, *limits)
    with running_mesh(tmp_path_factory.mktemp("endless"), *options) as notice:
        yield notice
        wait_for("the worker was idle in the end", lambda: running_requests(notice) == 0)


def running_requests(mesh: MeshNotice) -> float:
    """Requests that the mesh's worker holds just now, running or waiting."""
    (address,) = (each.metrics_address for each in mesh.processes if each.job == "worker")
    text = httpx.get(f"http://{address}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("tokenmesh_worker_requests_running", "tokenmesh_worker_requests_waiting")
    )


def chat_body(model: str = ENDLESS_MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Talk"}], **fields}


@contextmanager
def open_stream(
    mesh: MeshNotice, model: str = ENDLESS_MODEL, **headers: str
) -> Iterator[Iterator[str]]:
    """The data of the events of a stream."""
    body = chat_body(model, stream=True)
    url = f"{mesh.base_url}/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        yield (line[6:] for line in response.iter_lines() if line)


def first_text(events: Iterator[str]) -> str:
    """Reads until the first text has come."""
    for event in events:
        text = json.loads(event)["choices"][0]["delta"].get("content")
        if text:
            return str(text)
    raise AssertionError("the stream ended without text")


def test_events_come_as_they_are_made_and_leaving_ends_the_work(endless: MeshNotice) -> None:
    with open_stream(endless) as events:
        assert first_text(events)
        wait_for("the worker was at work", lambda: running_requests(endless) == 1)
    wait_for("the place was free", lambda: running_requests(endless) == 0)


def test_leaving_without_a_stream_ends_the_work_too(endless: MeshNotice) -> None:
    url = f"{endless.base_url}/chat/completions"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=chat_body(), timeout=1)
    wait_for("the place was free", lambda: running_requests(endless) == 0)


def test_a_deadline_before_the_answer_is_504(endless: MeshNotice) -> None:
    url = f"{endless.base_url}/chat/completions"
    response = httpx.post(url, json=chat_body(), headers={"x-request-timeout": "0.5"}, timeout=60)
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout"


def test_a_deadline_within_a_stream_is_its_last_event(endless: MeshNotice) -> None:
    with open_stream(endless, **{"x-request-timeout": "1"}) as events:
        assert first_text(events)
        *_, last = events
    error = json.loads(last)["error"]
    assert (error["type"], error["param"]) == ("timeout", None)


def test_a_dead_worker_within_a_stream_is_its_last_event(endless: MeshNotice, folder: Path) -> None:
    (controller,) = endless.addresses("controller")
    options = ("--controller", controller, "--engine", "scripted", "--model-names", DOOMED_MODEL)
    with running_service(folder, "worker", *options, *ENDLESS) as (process, _):
        models_url = f"{endless.base_url}/models/{DOOMED_MODEL}"
        wait_for("the worker was known", lambda: httpx.get(models_url).status_code == 200)
        with open_stream(endless, DOOMED_MODEL) as events:
            assert first_text(events)
            process.send(signal.SIGKILL)
            *_, last = events
        error = json.loads(last)["error"]
        assert error["type"] == "server_error"
        assert set(error) == {"message", "type", "param", "code"}
        url = f"{endless.base_url}/chat/completions"
        response = httpx.post(url, json=chat_body(DOOMED_MODEL), timeout=60)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["type"] == "server_error"


def test_a_stream_whose_gateway_dies_is_cut_off_and_not_begun_again(
    endless: MeshNotice, folder: Path
) -> None:
    (controller,) = endless.addresses("controller")
    with (
        running_service(folder, "gateway", "--controller", controller) as (process, gateway),
        running_envoy(folder, gateway.address) as edge,
    ):
        url = f"http://{edge.listen_host}:{edge.listen_port}/v1/chat/completions"
        with httpx.stream("POST", url, json=chat_body(stream=True), timeout=60) as response:
            events = (line[6:] for line in response.iter_lines() if line)
            assert first_text(events)
            process.send(signal.SIGKILL)
            rest: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):
                rest.extend(events)
            assert not [event for event in rest if '"role"' in event]
        wait_for("the work had ended", lambda: running_requests(endless) == 0)
