"""Checkpoints that are whole load, however they are stored; broken ones stop the start, each in
one line that names the file and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.checkpoint.loading import load_checkpoint
from services.worker.engines.transformers.checkpoint.quantization import checkpoint_quantization
from tests.contract.engine_client import running
from tests.models import checkpoint, edit_config

UP_PROJECTION = "model.layers.1.mlp.up_proj.weight"
REMOTE_CONFIG = """
from transformers import LlamaConfig
class AbacusConfig(LlamaConfig):
    model_type = "abacus"
"""
REMOTE_MODEL = """
from transformers import LlamaForCausalLM
from .configuration import AbacusConfig
class AbacusForCausalLM(LlamaForCausalLM):
    config_class = AbacusConfig
"""


def settings_of(path: Path | str, **settings: Any) -> EngineSettings:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1} | settings
    return EngineSettings(str(path), **given)


def logits(path: Path | str, **settings: Any) -> torch.Tensor:
    loaded = load_checkpoint(settings_of(path, **settings))
    with torch.inference_mode():
        computed: torch.Tensor = loaded.model(torch.arange(12)[None]).logits
    return computed


def refusal(path: Path | str, **settings: Any) -> str:
    with pytest.raises(StartError) as refused:
        load_checkpoint(settings_of(path, **settings))
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to break."""
    shutil.copytree(checkpoint(), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(folder: Path) -> Path:
    """A checkpoint in several files."""
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def pickle_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Stores the weights as torch did before there were safetensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return tensors


class TestWholeOnes:
    def test_shards_are_put_together(self, sharded: Path) -> None:
        assert torch.equal(logits(sharded), logits(checkpoint()))

    def test_pickled_weights_need_permission(self, folder: Path) -> None:
        pickle_weights(folder)
        line = refusal(folder)
        assert str(folder) in line
        assert "pytorch_model.bin" in line
        assert "--allow-pickle" in line
        assert torch.equal(logits(folder, allow_pickle=True), logits(checkpoint()))

    def test_pickled_shards_need_permission(self, folder: Path) -> None:
        tensors = pickle_weights(folder)
        (folder / "pytorch_model.bin").unlink()
        shards: dict[str, str] = {}
        for number, half in enumerate((list(tensors)[::2], list(tensors)[1::2])):
            name = f"pytorch_model-{number}.bin"
            torch.save({key: tensors[key] for key in half}, folder / name)
            shards |= dict.fromkeys(half, name)
        index = {"metadata": {}, "weight_map": shards}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        assert "--allow-pickle" in refusal(folder)
        assert torch.equal(logits(folder, allow_pickle=True), logits(checkpoint()))
        (folder / "pytorch_model-1.bin").unlink()
        assert "pytorch_model-1.bin" in refusal(folder, allow_pickle=True)

    def test_safetensors_are_taken_before_pickles(self, folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"never read")
        assert torch.equal(logits(folder, allow_pickle=True), logits(checkpoint()))

    def test_remote_code_needs_permission(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
        )
        monkeypatch.syspath_prepend(str(tmp_path / "modules"))
        (folder / "configuration.py").write_text(REMOTE_CONFIG)
        (folder / "modeling.py").write_text(REMOTE_MODEL)
        config = json.loads((folder / "config.json").read_text()) | {
            "model_type": "abacus",
            "auto_map": {
                "AutoConfig": "configuration.AbacusConfig",
                "AutoModelForCausalLM": "modeling.AbacusForCausalLM",
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        assert "--trust-remote-code" in refusal(folder)
        assert torch.equal(logits(folder, trust_remote_code=True), logits(checkpoint()))

    async def test_without_a_chat_template_there_are_completions(self) -> None:
        settings = settings_of(checkpoint(tokenizer="metaspace"))
        async with running(TransformersEngine(settings)) as client:
            capabilities = client.engine.models[0].capabilities
            output = await client.run("The quick", max_tokens=3, ignore_eos=True)
        assert "CHAT" not in capabilities
        assert "COMPLETE" in capabilities
        assert output.finished.completion_tokens == 3


class TestWeights:
    def test_none(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        line = refusal(folder)
        assert f"folder {folder} has no weights" in line
        assert "model.safetensors" in line

    @pytest.mark.parametrize(
        "damage",
        [lambda whole: b"", lambda whole: b"not a checkpoint " * 9, lambda whole: b"\0" * 99],
    )
    def test_a_file_of_something_else(self, folder: Path, damage: Callable[[bytes], bytes]) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(damage(weights.read_bytes()))
        assert f"{weights} is damaged, or no safetensors file: copy it again" in refusal(folder)

    @pytest.mark.parametrize("kept", [0.1, 0.9])
    def test_a_shard_that_is_cut_off(self, sharded: Path, kept: float) -> None:
        shard = sorted(sharded.glob("model-*.safetensors"))[1]
        content = shard.read_bytes()
        shard.write_bytes(content[: int(len(content) * kept)])
        line = refusal(sharded)
        assert f"{shard} is cut off" in line
        assert "copy it again" in line

    def test_a_shard_that_is_not_there(self, sharded: Path) -> None:
        shard = sorted(sharded.glob("model-*.safetensors"))[1]
        shard.unlink()
        line = refusal(sharded)
        assert "model.safetensors.index.json lists" in line
        assert shard.name in line

    @pytest.mark.parametrize(
        ("index", "says"), [("{", "not valid JSON"), ("[]", "no JSON object"), ("{}", "weight_map")]
    )
    def test_an_index_that_is_none(self, sharded: Path, index: str, says: str) -> None:
        path = sharded / "model.safetensors.index.json"
        path.write_text(index)
        line = refusal(sharded)
        assert str(path) in line
        assert says in line

    def test_a_tensor_that_is_missing_is_not_made_up(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        tensors = load_file(weights)
        del tensors[UP_PROJECTION]
        save_file(tensors, weights, {"format": "pt"})
        line = refusal(folder)
        assert f"the weights of {folder} are not complete: {UP_PROJECTION} is missing" in line

    def test_a_tensor_of_another_shape(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        tensors = load_file(weights)
        tensors[UP_PROJECTION] = torch.zeros(96, 60)
        save_file(tensors, weights, {"format": "pt"})
        line = refusal(folder)
        assert f"{UP_PROJECTION} is of shape 96x60, and must be 96x64" in line

    def test_weights_of_another_model(self, tmp_path: Path) -> None:
        folder = edit_config(checkpoint(), tmp_path / "m", hidden_size=128)
        assert "do not match its config.json" in refusal(folder)
        assert "more" in refusal(folder)

    @pytest.mark.parametrize("content", [b"PK\3\4 cut off", b"text"])
    def test_a_pickle_that_is_none(self, folder: Path, content: bytes) -> None:
        pickle_weights(folder)
        weights = folder / "pytorch_model.bin"
        weights.write_bytes(content)
        assert f"{weights} is damaged" in refusal(folder, allow_pickle=True)

    def test_a_pickle_that_would_run_code(self, folder: Path) -> None:
        pickle_weights(folder)
        torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
        assert f"cannot load the weights of {folder}" in refusal(folder, allow_pickle=True)


class TestConfigurations:
    @pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
    def test_a_file_that_is_no_json(self, folder: Path, name: str) -> None:
        (folder / name).write_text('{"a": 1,')
        assert f"{folder / name} is not valid JSON" in refusal(folder)

    def test_a_configuration_that_is_no_object(self, folder: Path) -> None:
        (folder / "config.json").write_text("[1]")
        assert f"{folder / 'config.json'} holds no JSON object" in refusal(folder)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"model_type": "abacus"}, "'abacus', which transformers"),
            ({"model_type": None}, "names no model_type"),
            ({"hidden_size": "x"}, "hidden_size"),
            ({"num_attention_heads": 0}, "(config.json)"),
        ],
    )
    def test_values_that_cannot_be(
        self, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        assert says in refusal(edit_config(checkpoint(), tmp_path / "m", **changes))


class TestTokenizers:
    # With no file, some families' tokenizers fail, and others start with an empty vocabulary.
    @pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
    def test_none(self, tmp_path: Path, model_type: str) -> None:
        folder = tmp_path / "m"
        shutil.copytree(checkpoint(model_type), folder)
        for path in folder.glob("tokenizer*"):
            path.unlink()
        line = refusal(folder)
        assert f"{folder} has no tokenizer" in line
        assert "tokenizer.json" in line

    def test_one_that_cannot_be_read(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text('{"version": "0"}')
        assert f"cannot load the tokenizer of {folder}" in refusal(folder)


class TestOffloading:
    """Weights on the disk, through the paged engine: the same tokens as from memory."""

    @pytest.mark.parametrize("limit_bytes", [1, 400_000])
    async def test_weights_on_the_disk_compute_the_same(
        self, tmp_path: Path, limit_bytes: int
    ) -> None:
        prompts = ("The quick brown fox", "a", "Numbers: 0 1 2 3 4 5 6 7 8 9, " * 4)
        greedy = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True}
        outputs = []
        for offload in (
            {},
            {"max_cpu_memory_bytes": limit_bytes, "offload_folder": tmp_path / "offload"},
        ):
            engine = TransformersEngine(settings_of(checkpoint(), step_tokens=23, **offload))
            async with running(engine) as client:
                keys = [await client.submit(prompt, **greedy) for prompt in prompts]
                outputs.append([(await client.end_of(key)).token_ids for key in keys])
        assert outputs[0] == outputs[1]

    def test_the_checkpoint_says_where_its_parts_are(self, tmp_path: Path) -> None:
        loaded = load_checkpoint(
            settings_of(
                checkpoint(), max_cpu_memory_bytes=400_000, offload_folder=tmp_path / "offload"
            )
        )
        assert set(loaded.device_map.values()) == {"cpu", "disk"}
        assert not loaded.has_plain_weights
        assert load_checkpoint(settings_of(checkpoint())).has_plain_weights

    def test_weights_over_the_limit_without_a_folder(self) -> None:
        assert "--offload-folder" in refusal(checkpoint(), max_cpu_memory_bytes=400_000)


class TestQuantization:
    @pytest.mark.parametrize(
        ("model_type", "quantization", "tolerance"),
        [("llama", "8bit", 0.1), ("llama", "4bit", 0.5), ("gpt2", "8bit", 0.1)],
    )
    async def test_shrunk_weights_compute_nearly_the_same(
        self, model_type: str, quantization: str, tolerance: float
    ) -> None:
        whole = load_checkpoint(settings_of(checkpoint(model_type)))
        shrunk = load_checkpoint(settings_of(checkpoint(model_type), quantization=quantization))
        assert shrunk.quantization == f"bitsandbytes-{quantization}"
        assert shrunk.weight_bytes < 0.7 * whole.weight_bytes
        tokens = torch.arange(12)[None]
        with torch.inference_mode():
            expected, computed = whole.model(tokens).logits, shrunk.model(tokens).logits
        assert 0 < float((computed - expected).norm() / expected.norm()) < tolerance

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("quantization", ["8bit", "4bit"])
    async def test_a_shrunk_model_runs_in_batches(self, quantization: str, dtype: str) -> None:
        settings = settings_of(checkpoint("qwen3"), quantization=quantization, dtype=dtype)
        async with running(TransformersEngine(settings)) as client:
            (model,) = client.engine.models
            keys = [await client.submit(max_tokens=8, ignore_eos=True) for _ in range(3)]
            ends = [await client.end_of(key) for key in keys]
        assert model.quantization == f"bitsandbytes-{quantization}"
        assert model.execution == "paged"
        assert [each.finished.completion_tokens for each in ends] == [8, 8, 8]

    def test_layers_that_the_cpu_kernel_cannot_run_stay_whole(self) -> None:
        loaded = load_checkpoint(settings_of(checkpoint(), quantization="4bit"))
        layer = loaded.model.model.layers[0].mlp
        # 96 inputs, no multiple of 64.
        assert type(layer.down_proj).__name__ == "Linear"
        assert type(layer.up_proj).__name__ == "Linear4bit"

    def test_a_model_without_a_layer_that_can_be_shrunk(self, tmp_path: Path) -> None:
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4}
        folder = edit_config(checkpoint(), tmp_path / "m", **sizes)
        assert "inputs must be multiples of 64" in refusal(folder, quantization="4bit")

    @pytest.mark.parametrize("model_type", ["deepseek_v3", "mamba"])
    def test_a_model_whose_code_cannot_be_run_shrunk(self, model_type: str) -> None:
        line = refusal(checkpoint(model_type), quantization="8bit")
        assert f"--load-8bit does not run with model type {model_type!r}" in line

    def test_a_checkpoint_that_is_quantized_already(self, tmp_path: Path) -> None:
        given = {"quant_method": "gptq", "bits": 4}
        folder = edit_config(checkpoint(), tmp_path / "m", quantization_config=given)
        line = refusal(folder, quantization="8bit")
        assert "--load-8bit is for checkpoints that are not quantized, and this one is" in line
        assert "gptq-4bit" in line

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            (None, ""),
            ({"quant_method": "awq", "bits": 4}, "awq-4bit"),
            ({"quant_method": "fp8"}, "fp8"),
            ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
            ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8bit"),
        ],
    )
    def test_names(self, given: dict[str, Any] | None, name: str) -> None:
        config = transformers.LlamaConfig()
        if given is not None:
            config.quantization_config = given
        assert checkpoint_quantization(config) == name
