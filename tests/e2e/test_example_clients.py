"""The example clients in four languages, each made from the protos alone."""

from __future__ import annotations

import urllib.request

import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.example_clients import CLIENTS_BY_LANGUAGE, built, output_of
from tests.e2e.processes import running_service

LANGUAGES = sorted(CLIENTS_BY_LANGUAGE)
KEY = "sk-of-the-example-clients"


def cancelled(mesh: MeshNotice) -> float:
    """Requests that workers say have been aborted."""
    total = 0.0
    for process in mesh.processes:
        if process.job == "worker":
            url = f"http://{process.metrics_address}{process.metrics_path}"
            with urllib.request.urlopen(url) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("tokenmesh_worker_requests_total") and "aborted" in line:
                        total += float(line.rpartition(" ")[2])
    return total


@pytest.mark.timeout(420)
@pytest.mark.parametrize("language", LANGUAGES)
def test_streams_leaves_interrupts_and_reads_errors(
    endless_mesh: MeshNotice, language: str
) -> None:
    client = CLIENTS_BY_LANGUAGE[language]
    built(client)
    before = cancelled(endless_mesh)
    lines = output_of(client, endless_mesh.grpc_address, SCRIPTED_MODEL)

    # The worker has one place: what follows an answer that was left could not have come otherwise.
    titles = [line for line in lines if line.startswith("> ")]
    assert titles == [
        "> What is TokenMesh?",
        "> Tell me a story.",
        "> Tell me a story. Then: What is the capital of France?",
        "> a temperature of 9",
        "> a model that nobody serves",
    ]
    endings = [line for line in lines if line.startswith("(")]
    whole, left, interrupted, completed = endings
    assert (whole, left) == ("(40 tokens)", "(left after 5 chunks)")
    assert interrupted.startswith("(interrupted, ")
    assert completed == "(completed, 40 tokens)"
    answers = [lines[lines.index(ending) - 1] for ending in endings]
    assert all(answer.strip() for answer in answers)
    assert cancelled(endless_mesh) - before == 2

    temperature, nobody = (lines[lines.index(title) + 1 :] for title in titles[-2:])
    assert "temperature must be between 0 and 2" in temperature[0]
    assert temperature[1:3] == ["  reason: INVALID_REQUEST", "  field: sampling.temperature"]
    assert "nobody" in nobody[0]
    assert nobody[1:3] == ["  reason: MODEL_NOT_FOUND", "  field: model"]


@pytest.mark.timeout(420)
def test_brings_a_key_and_tells_when_to_try_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ("--controller", "127.0.0.1:1", "--api-keys", KEY)
    with running_service(tmp_path_factory.mktemp("lonely"), "gateway", *options) as (_, gateway):
        for language in LANGUAGES:
            client = CLIENTS_BY_LANGUAGE[language]
            arguments = (gateway.address, SCRIPTED_MODEL)
            refused = output_of(client, *arguments, exit_code=1)
            assert refused[-1] == "  reason: INVALID_API_KEY"
            told = output_of(client, *arguments, api_key=KEY, exit_code=1)
            assert told[-2:] == ["  reason: NO_WORKER", "  retry after: 2000 ms"]
