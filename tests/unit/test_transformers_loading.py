"""What stops the start of the transformers engine, each in one line that names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from services.mesh.errors import StartError
from services.worker.engines import create
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.checkpoint.device import (
    choose_device,
    default_threads,
    free_memory,
    kv_budget_bytes,
    kv_dtype,
)
from services.worker.engines.transformers.checkpoint.precision import (
    choose_dtype,
    cpu_has_native_bfloat16,
    has_native_bfloat16,
)
from services.worker.engines.transformers.checkpoint.revision import folder_revision
from tests.contract.engine_client import running
from tests.models import CONTEXT_TOKENS, checkpoint, edit_config


async def refusal(path: Path | str, **settings: Any) -> str:
    given: dict[str, Any] = {"device": "cpu", "threads": 1} | settings
    engine = TransformersEngine(EngineSettings(str(path), **given))
    with pytest.raises(StartError) as refused:
        await engine.start()
    await engine.stop()
    line = str(refused.value)
    assert "\n" not in line
    return line


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("device", "tpu"),
            ("dtype", "int3"),
            ("quantization", "2bit"),
            ("gpus", ("0", "x")),
            ("gpus", ("1", "1")),
            ("num_gpus", 0),
            ("max_gpu_memory_bytes", 0),
            ("max_cpu_memory_bytes", 0),
            ("gpu_memory_utilization", 0.0),
            ("gpu_memory_utilization", 1.5),
            ("gpu_memory_utilization", float("nan")),
            ("max_running", 0),
            ("max_waiting", 0),
            ("step_tokens", 0),
            ("threads", -1),
            ("context_length_tokens", 0),
            ("kv_memory_bytes", -5),
            ("model_path", ""),
            ("model_names", ("a", "")),
        ],
    )
    def test_a_bad_value_names_itself(self, name: str, value: Any) -> None:
        with pytest.raises(StartError, match=name):
            EngineSettings(**{"model_path": "m", name: value})

    def test_more_gpus_than_are_named(self) -> None:
        with pytest.raises(StartError, match="num_gpus is 3, and --gpus names 2"):
            EngineSettings("m", gpus=("0", "GPU-4fc0"), num_gpus=3)

    def test_an_unknown_engine(self) -> None:
        with pytest.raises(StartError, match="choose from transformers, encoder, scripted"):
            create("abacus", EngineSettings("m"))


class TestCheckpoints:
    async def test_a_missing_folder(self, tmp_path: Path) -> None:
        assert "there is no folder" in await refusal(tmp_path / "nothing")
        assert "there is no folder" in await refusal("./nothing")

    async def test_a_folder_without_a_checkpoint(self, tmp_path: Path) -> None:
        assert "no config.json" in await refusal(tmp_path)

    async def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.gguf").touch()
        assert "is a file" in await refusal(tmp_path / "model.gguf")

    async def test_a_revision_of_a_folder(self) -> None:
        assert "revision 'v2'" in await refusal(checkpoint(), revision="v2")


class TestDevices:
    @pytest.mark.parametrize("device", ["mps", "npu", "cpu:1", "cpu:x"])
    async def test_a_device_that_is_not_there(self, device: str) -> None:
        assert repr(device) in await refusal(checkpoint(), device=device)

    async def test_too_little_kv_memory(self) -> None:
        line = await refusal(checkpoint(), kv_memory_bytes=1024, context_length_tokens=100)
        assert "--kv-cache-memory" in line

    async def test_a_context_beyond_the_models(self) -> None:
        line = await refusal(checkpoint(), context_length_tokens=CONTEXT_TOKENS + 1)
        assert "context_length_tokens" in line

    @pytest.mark.parametrize(
        ("name", "kind", "checkpoint_dtype", "has_bfloat16", "chosen"),
        [
            ("auto", "cpu", "float32", True, "bfloat16"),
            ("auto", "cpu", "bfloat16", False, "float32"),
            ("auto", "cuda", "bfloat16", True, "bfloat16"),
            ("auto", "cuda", "bfloat16", False, "float16"),
            ("auto", "cuda", "float16", True, "float16"),
            ("auto", "cuda", "float32", True, "bfloat16"),
            ("auto", "cuda", "float32", False, "float16"),
            ("auto", "cuda", None, True, "bfloat16"),
            ("auto", "xpu", "float16", True, "bfloat16"),
            ("auto", "mps", "float32", True, "float16"),
            ("auto", "mps", "bfloat16", True, "bfloat16"),
            ("float32", "cuda", "bfloat16", True, "float32"),
            ("float16", "cpu", "float32", False, "float16"),
            ("bfloat16", "cpu", "float32", False, "bfloat16"),
            ("bfloat16", "cuda", "float32", True, "bfloat16"),
        ],
    )
    def test_the_type_of_the_weights(
        self, name: str, kind: str, checkpoint_dtype: str | None, has_bfloat16: bool, chosen: str
    ) -> None:
        device = torch.device(kind)
        stored = None if checkpoint_dtype is None else getattr(torch, checkpoint_dtype)
        dtype = choose_dtype(name, device, stored, has_bfloat16=has_bfloat16)
        assert dtype is getattr(torch, chosen)
        widened = kind == "cpu" and dtype is torch.float16
        assert kv_dtype(device, dtype) is (torch.float32 if widened else dtype)

    def test_a_type_that_the_device_lacks(self) -> None:
        with pytest.raises(StartError, match=r"bfloat16.*cuda:1.*choose float16 or float32"):
            choose_dtype("bfloat16", torch.device("cuda:1"), None, has_bfloat16=False)

    @pytest.mark.parametrize(
        ("lines", "environment", "is_native"),
        [
            ("flags\t\t: fpu avx512_bf16 sse\n", {}, True),
            ("processor: 0\nflags : fpu amx_bf16\n", {}, True),
            ("Features\t: fp asimd bf16 sve\n", {}, True),
            ("flags\t\t: fpu avx2 avx512f\n", {}, False),
            ("flags\t\t: fpu avx2\n", {"CPU_ISA": "amx"}, True),
            ("flags\t\t: fpu avx2\n", {"CPU_ISA": "avx2"}, False),
            (None, {}, False),
        ],
    )
    def test_which_cpus_compute_in_bfloat16(
        self, tmp_path: Path, lines: str | None, environment: dict[str, str], is_native: bool
    ) -> None:
        cpu_info = tmp_path / "cpuinfo"
        if lines is not None:
            cpu_info.write_text(lines)
        assert cpu_has_native_bfloat16(environment, cpu_info) is is_native

    async def test_auto_is_bfloat16_where_the_cpu_has_it(self) -> None:
        native = has_native_bfloat16(torch.device("cpu"))
        settings = EngineSettings(str(checkpoint()), device="cpu", threads=1)
        async with running(TransformersEngine(settings)) as client:
            assert client.engine.models[0].dtype == ("bfloat16" if native else "float32")

    def test_a_cpu_has_no_accelerators(self) -> None:
        free = free_memory(torch.device("cpu"))
        assert not free.accelerators
        assert free.host > 0

    def test_a_cpu_gives_the_cache_part_of_what_is_free(self) -> None:
        assert choose_device("cpu") == torch.device("cpu")
        assert kv_budget_bytes(torch.device("cpu")) > 0
        assert default_threads() >= 1


class TestDescription:
    async def test_names_defaults_and_limits(self, tmp_path: Path) -> None:
        folder = tmp_path / "my-model"
        shutil.copytree(checkpoint(), folder)
        engine = TransformersEngine(
            EngineSettings(str(folder), device="cpu", dtype="float32", threads=1, max_running=2)
        )
        async with running(engine):
            (model,) = engine.models
        assert (model.name, model.aliases) == ("my-model", ())
        assert (model.dtype, model.quantization) == ("float32", "")
        assert model.vocabulary_size == 400
        assert engine.capacity.kv_total_tokens == 2 * CONTEXT_TOKENS

    async def test_a_model_that_rotates_anew_beyond_its_original_context_stays_within(
        self, tmp_path: Path
    ) -> None:
        rope = {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
        }
        folder = edit_config(
            checkpoint("phi3"),
            tmp_path / "m",
            rope_parameters=rope,
            original_max_position_embeddings=128,
        )
        async with running(
            TransformersEngine(EngineSettings(str(folder), device="cpu", threads=1))
        ) as client:
            assert client.engine.models[0].context_length_tokens == 128

    async def test_aliases_answer_too(self) -> None:
        settings = EngineSettings(
            str(checkpoint()), model_names=("a", "b"), device="cpu", threads=1
        )
        async with running(TransformersEngine(settings)) as client:
            output = await client.run(own={"model": "b"}, max_tokens=2, ignore_eos=True)
        assert output.finished.completion_tokens == 2

    async def test_the_generation_config_speaks_where_the_request_is_silent(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "m"
        shutil.copytree(checkpoint(), folder)
        path = folder / "generation_config.json"
        given = {"max_new_tokens": 7, "top_k": 1, "temperature": 1.5, "do_sample": True}
        path.write_text(json.dumps(json.loads(path.read_text()) | given))
        settings = EngineSettings(str(folder), device="cpu", dtype="float32", threads=1)
        async with running(TransformersEngine(settings)) as client:
            silent = await client.run(seed=1, ignore_eos=True)
            greedy = await client.run(temperature=0.0, ignore_eos=True)
            loud = await client.run(seed=1, ignore_eos=True, top_k=0, max_tokens=9)
        assert silent.finished.completion_tokens == 7
        assert silent.token_ids == greedy.token_ids
        assert loud.finished.completion_tokens == 9
        assert loud.token_ids[:7] != silent.token_ids

    def test_the_revision_is_of_the_content(self, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(checkpoint(), copy)
        (copy / "README.md").write_text("notes")
        assert folder_revision(copy) == folder_revision(checkpoint())
        weights = copy / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert folder_revision(copy) != folder_revision(checkpoint())

    def test_the_revision_of_a_large_file_sees_all_of_it(self, tmp_path: Path) -> None:
        for name, byte in (("a", 0), ("b", 1)):
            folder = tmp_path / name
            folder.mkdir()
            with (folder / "model.safetensors").open("wb") as file:
                file.truncate(64 * 1024 * 1024)
                file.seek(-1, 2)
                file.write(bytes((byte,)))
        assert folder_revision(tmp_path / "a") != folder_revision(tmp_path / "b")
