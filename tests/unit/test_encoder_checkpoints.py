"""What an encoder's checkpoint says, what is made of it, and what stops the start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from services.mesh.errors import StartError
from services.worker.engine_choice import checkpoint_settings, choose_engine
from services.worker.engines.encoder import EncoderEngine, EncoderSettings
from services.worker.engines.encoder.loading import load_encoder
from services.worker.engines.recognition import engine_of, recognize_engine
from services.worker.engines.settings import EngineSettings
from tests.encoders import POSITIONS, encoder
from tests.models import checkpoint


def settings(folder: Path | str, **fields: Any) -> EncoderSettings:
    own = {name: fields.pop(name) for name in ("pooling", "batch_tokens") if name in fields}
    return EncoderSettings(EngineSettings(str(folder), device="cpu", threads=1, **fields), **own)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a checkpoint, with JSON files of it changed: None removes one."""

    def make(name: str, **files: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(encoder(name), folder)
        for file, content in files.items():
            path = folder / file.replace("__", "/").replace("_json", ".json")
            if content is None:
                path.unlink()
            elif isinstance(content, str):
                path.write_text(content)
            else:
                old = json.loads(path.read_text()) if path.exists() else {}
                merged = old | content if isinstance(content, dict) else content
                path.write_text(json.dumps(merged))
        return folder

    return make


class TestWhichEngine:
    @pytest.mark.parametrize("name", ["bert", "bert-plain", "bert-cross", "qwen3", "xlm-roberta"])
    def test_checkpoints_that_embed_or_score(self, name: str) -> None:
        assert recognize_engine(str(encoder(name))) == "encoder"

    @pytest.mark.parametrize("name", ["llama", "t5", "mamba"])
    def test_checkpoints_that_generate(self, name: str) -> None:
        assert recognize_engine(str(checkpoint(name))) == "transformers"

    @pytest.mark.parametrize(
        ("architecture", "engine"),
        [
            ("Qwen3ForCausalLM", "transformers"),
            ("GPT2LMHeadModel", "transformers"),
            ("T5ForConditionalGeneration", "transformers"),
            ("BertForMaskedLM", "encoder"),
            ("NomicBertModel", "encoder"),
            ("T5EncoderModel", "encoder"),
            ("XLMRobertaForSequenceClassification", "encoder"),
            ("BertForQuestionAnswering", "transformers"),
        ],
    )
    def test_architectures(self, architecture: str, engine: str) -> None:
        assert engine_of({"architectures": [architecture]}) == engine

    def test_what_cannot_be_read_is_for_the_engine_to_say(self, tmp_path: Path) -> None:
        assert recognize_engine(str(tmp_path / "nowhere")) == "transformers"
        assert recognize_engine(str(tmp_path)) == "transformers"
        (tmp_path / "config.json").write_text("{")
        assert recognize_engine(str(tmp_path)) == "transformers"
        configs: list[Any] = [[], {"architectures": None}, {}]
        for config in configs:
            (tmp_path / "config.json").write_text(json.dumps(config))
            assert recognize_engine(str(tmp_path)) == "transformers"

    def test_an_engine_that_is_named_is_taken(self) -> None:
        assert choose_engine("transformers", str(encoder()), None) == "transformers"
        assert choose_engine("auto", str(encoder()), None) == "encoder"

    def test_options_of_the_encoder_are_for_encoders(self) -> None:
        with pytest.raises(StartError, match="--engine encoder"):
            checkpoint_settings(
                "transformers", {}, pooling="cls", batch_tokens=None, truncates=False
            )


class TestLengths:
    @pytest.mark.parametrize(
        ("name", "tokens"),
        [
            ("bert", POSITIONS),
            # Counted on from the padding token's position.
            ("xlm-roberta", POSITIONS),
            ("mpnet", POSITIONS),
            # As the checkpoint was trained with.
            ("bert-cls-dense", 48),
        ],
    )
    def test_the_longest_text(self, name: str, tokens: int) -> None:
        assert load_encoder(settings(encoder(name))).max_tokens == tokens

    def test_it_may_be_set(self) -> None:
        folder = encoder("bert-cls-dense")
        loaded = load_encoder(settings(folder, context_length_tokens=POSITIONS))
        assert loaded.max_tokens == POSITIONS
        with pytest.raises(StartError, match=f"made for {POSITIONS} at most"):
            load_encoder(settings(folder, context_length_tokens=POSITIONS + 1))


class TestPooling:
    @pytest.mark.parametrize(("name", "pooling"), [("bert-plain", "mean"), ("qwen3", "last")])
    def test_a_checkpoint_that_does_not_say(
        self, copy: Callable[..., Path], name: str, pooling: str
    ) -> None:
        files = {} if name == "bert-plain" else {"modules_json": None}
        loaded = load_encoder(settings(copy(name, **files)))
        assert loaded.pooling == (pooling,)

    def test_several_modes_are_joined(self, copy: Callable[..., Path]) -> None:
        folder = copy("bert", **{"1_Pooling__config_json": {"pooling_mode_cls_token": True}})
        loaded = load_encoder(settings(folder))
        assert loaded.pooling == ("cls", "mean")
        assert loaded.dimensions == 64

    def test_the_newer_spelling(self, copy: Callable[..., Path]) -> None:
        folder = copy("bert", **{"1_Pooling__config_json": {"pooling_mode": "lasttoken"}})
        assert load_encoder(settings(folder)).pooling == ("last",)


class TestScores:
    def test_a_checkpoint_may_name_what_its_logits_go_through(
        self, copy: Callable[..., Path]
    ) -> None:
        named = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
        loaded = load_encoder(settings(copy("bert-cross", config_json=named)))
        assert isinstance(loaded.model._activation, torch.nn.Identity)  # type: ignore[union-attr]


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("bert-classes", {}, {}, "tells 3 classes apart"),
    ("bert", {"modules_json": "{"}, {}, "cannot read modules.json"),
    ("bert", {"modules_json": '{"a": 1}'}, {}, "modules.json .* holds no JSON list"),
    ("bert", {"modules_json": [{"path": ""}]}, {}, "a module without a type"),
    ("bert", {"modules_json": [{"type": "x.LSTM"}]}, {}, "a module 'LSTM'"),
    ("bert", {"1_Pooling__config_json": None}, {}, "no 1_Pooling/config.json"),
    (
        "bert",
        {"1_Pooling__config_json": {"pooling_mode_mean_tokens": False}},
        {},
        "turns no pooling mode on",
    ),
    ("bert", {"1_Pooling__config_json": {"pooling_mode": "median"}}, {}, "'median'"),
    ("bert-cls-dense", {"2_Dense__config_json": {"out_features": 9}}, {}, "must be of shape"),
    ("bert-cls-dense", {"2_Dense__config_json": {"in_features": None}}, {}, "in_features"),
    (
        "bert-cls-dense",
        {"2_Dense__config_json": {"activation_function": "torch.nn.Evil"}},
        {},
        "activation 'torch.nn.Evil'",
    ),
    (
        "bert-cross",
        {"config_json": {"sbert_ce_default_activation_function": "os.system"}},
        {},
        "activation 'os.system'",
    ),
    (
        "bert-prompt",
        {"config_sentence_transformers_json": {"default_prompt_name": "none"}},
        {},
        "no prompt 'none'",
    ),
    (
        "bert-prompt",
        {"1_Pooling__config_json": {"include_prompt": False}},
        {},
        "include_prompt",
    ),
    ("bert", {}, {"pooling": "median"}, "choose from auto, mean"),
    ("bert", {}, {"batch_tokens": 0}, "--batch-tokens is 0"),
    ("bert", {"tokenizer_json": None, "tokenizer_config_json": None}, {}, "no tokenizer"),
]


@pytest.mark.parametrize(("name", "files", "options", "says"), REFUSED)
def test_what_stops_the_start(
    copy: Callable[..., Path],
    name: str,
    files: dict[str, Any],
    options: dict[str, Any],
    says: str,
) -> None:
    folder = copy(name, **files)
    with pytest.raises(StartError, match=says):
        load_encoder(settings(folder, **options))


def test_missing_and_pickled_weights_of_a_dense_layer(copy: Callable[..., Path]) -> None:
    folder = copy("bert-cls-dense")
    weights = folder / "2_Dense" / "model.safetensors"
    weights.write_bytes(b"damaged")
    with pytest.raises(StartError, match="cannot read the weights of 2_Dense"):
        load_encoder(settings(folder))
    weights.unlink()
    with pytest.raises(StartError, match=r"2_Dense .* has no weights"):
        load_encoder(settings(folder))
    linear = torch.nn.Linear(32, 24)
    tensors = {"linear.weight": linear.weight, "linear.bias": linear.bias}
    torch.save(tensors, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(StartError, match="--allow-pickle"):
        load_encoder(settings(folder))
    # For the layer's alone: those of the model are safetensors still.
    assert load_encoder(settings(folder, allow_pickle=True)).dimensions == 24


def test_weights_that_make_no_numbers(copy: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("bert")
    tensors = load_file(folder / "model.safetensors")
    name = next(each for each in tensors if each.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartError, match="makes no numbers"):
        load_encoder(settings(folder))


async def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="there is no folder"):
        await EncoderEngine(settings(tmp_path / "nowhere")).start()
