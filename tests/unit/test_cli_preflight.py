from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.cli.up import preflight
from services.mesh.errors import StartError

LOOPBACK = "127.0.0.1"


def test_a_free_port_can_be_claimed_and_is_free_afterwards() -> None:
    port = preflight.claim_port(LOOPBACK, 0)
    assert preflight.claim_port(LOOPBACK, port) == port


def test_a_taken_port_is_named() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} is taken.*--port"):
            preflight.claim_port(LOOPBACK, port)


def test_a_port_that_is_taken_on_all_addresses_is_seen_on_one() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartError, match="is taken"):
            preflight.claim_port(LOOPBACK, port)


def test_a_port_that_is_shared_by_others_counts_as_taken() -> None:
    with (
        socket.create_server((LOOPBACK, 0), reuse_port=True) as listener,
        pytest.raises(StartError, match="is taken"),
    ):
        preflight.claim_port(LOOPBACK, listener.getsockname()[1])


def test_names_become_addresses() -> None:
    assert preflight.resolve_host("localhost") in {"127.0.0.1", "::1"}
    assert preflight.resolve_host("0.0.0.0") == "0.0.0.0"


def test_a_name_without_an_address_is_named() -> None:
    with pytest.raises(StartError, match=r"--host is 'no such host'"):
        preflight.resolve_host("no such host")


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1"):
        preflight.claim_port("192.0.2.1", 0)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0", "npu"])
def test_known_devices(device: str) -> None:
    preflight.check_device(device)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "CUDA", "cuda:0:1", "cpu "])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(StartError, match=r"unknown device.*choose from auto, cpu, cuda"):
        preflight.check_device(device)


def test_an_unknown_engine() -> None:
    with pytest.raises(StartError, match=r"unknown engine 'abacus': choose from .*transformers"):
        preflight.check_engine("abacus")


def test_a_folder_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert preflight.resolve_model("./model") == str(tmp_path / "model")
    assert preflight.resolve_model("model") == str(tmp_path / "model")


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"has no config\.json"):
        preflight.resolve_model(str(tmp_path))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(StartError, match="is a file"):
        preflight.resolve_model(str(file))


@pytest.mark.parametrize("model", ["/nowhere/model", "./model", "../model", "a/b/c", "~/nowhere"])
def test_a_missing_folder(model: str) -> None:
    with pytest.raises(StartError, match="does not exist"):
        preflight.resolve_model(model)


@pytest.mark.parametrize("model", ["gpt2", "Qwen/Qwen3-0.6B", "org_1/name.with-all_0"])
def test_a_hub_id_is_kept(model: str) -> None:
    assert preflight.resolve_model(model) == model


def test_a_run_folder_is_for_one_mesh_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        preflight.claim_run_folder(folder),
        pytest.raises(StartError, match="another mesh runs in"),
    ):
        preflight.claim_run_folder(folder)
    preflight.claim_run_folder(folder).close()


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"run folder .*file"):
        preflight.claim_run_folder(tmp_path / "file" / "run")
