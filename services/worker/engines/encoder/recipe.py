"""What makes a vector, or a score, of what a model computes: as the checkpoint's own files say.

sentence-transformers writes these files; see its documentation, "Creating Custom Models". Nearly
all published embedding models and cross-encoders have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.mesh.errors import StartError
from services.worker.engines.encoder.checkpoint_files import CheckpointFiles

POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_length",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
"""In the order in which sentence-transformers joins their vectors, where several are on."""

_POOLING_NAMES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_length",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""As newer files name them, in one field."""

ACTIVATIONS = ("Identity", "Sigmoid", "Tanh", "ReLU", "GELU")
"""Of torch.nn: what a dense layer or a score may go through."""

_LENGTH_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json")
_SETTINGS_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer over the pooled vector."""

    folder: str
    """In the checkpoint, with the layer's weights."""
    inputs: int
    outputs: int
    has_bias: bool
    activation: str
    """One of ACTIVATIONS."""


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint's texts are read, and how their vectors are made."""

    pooling: Sequence[str] = ()
    """Values of POOLING_KEYS; several are joined. Empty where the checkpoint does not say."""
    dense: Sequence[DenseLayer] = ()
    max_tokens: int | None = None
    """The longest text that the model is for, where that is less than it could read."""
    lowers_case: bool = False
    prompt: str = ""
    """Put before each text to embed: the checkpoint's default prompt."""


def read_recipe(files: CheckpointFiles) -> Recipe:
    """The recipe of a checkpoint; an empty one where it has no files of sentence-transformers.

    Raises:
        StartError: a file is damaged, or asks for what this engine does not do.
    """
    lengths = next((found for name in _LENGTH_FILES if (found := files.json(name))), {})
    max_tokens = lengths.get("max_seq_length")
    settings = files.json(_SETTINGS_FILE) or {}
    pooling: Sequence[str] = ()
    dense: list[DenseLayer] = []
    reads_prompt = True
    for kind, folder in _modules(files):
        if kind == "Pooling":
            config = _required(files, f"{folder}/config.json")
            pooling = _pooling(config, f"{folder}/config.json")
            reads_prompt = config.get("include_prompt", True) is not False
        elif kind == "Dense":
            dense.append(_dense(_required(files, f"{folder}/config.json"), folder))
        elif kind not in ("Transformer", "Normalize"):
            raise StartError(
                f"modules.json of {files.path} has a module {kind!r}, which this engine does not "
                "run: it runs Transformer, Pooling, Dense and Normalize"
            )
    prompt = _prompt(settings, files.path)
    if prompt and not reads_prompt:
        raise StartError(
            f"{files.path} leaves its prompt out of the pooling (include_prompt: false), which "
            "this engine does not do"
        )
    return Recipe(
        pooling=pooling,
        dense=tuple(dense),
        max_tokens=max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else None,
        lowers_case=lengths.get("do_lower_case") is True,
        prompt=prompt,
    )


def score_activation(config: Mapping[str, Any], path: str) -> str:
    """What a cross-encoder's logit goes through: as its config.json says, else a sigmoid.

    Args:
        config: the model's configuration.
        path: the checkpoint, for the message.

    Raises:
        StartError: it names none of ACTIVATIONS.
    """
    nested = config.get("sentence_transformers")
    named = nested.get("activation_fn") if isinstance(nested, dict) else None
    named = named or config.get("sbert_ce_default_activation_function")
    return "Sigmoid" if named is None else _activation(named, f"config.json of {path}")


def _modules(files: CheckpointFiles) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    listed = files.json_list("modules.json") or []
    modules = []
    for each in listed:
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            raise StartError(f"modules.json of {files.path} holds a module without a type")
        modules.append((each["type"].rpartition(".")[2], str(each.get("path") or "")))
    return modules


def _required(files: CheckpointFiles, name: str) -> Mapping[str, Any]:
    content = files.json(name)
    if content is None:
        raise StartError(f"{files.path} has no {name}, which its modules.json speaks of")
    return content


def _pooling(config: Mapping[str, Any], file: str) -> Sequence[str]:
    named = config.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        unknown = [each for each in names if each not in _POOLING_NAMES]
        if unknown:
            raise StartError(f"{file} names a pooling_mode {unknown[0]!r}, which is unknown")
        return tuple(_POOLING_NAMES[each] for each in names)
    modes = tuple(mode for key, mode in POOLING_KEYS.items() if config.get(key) is True)
    if not modes:
        raise StartError(f"{file} turns no pooling mode on")
    return modes


def _dense(config: Mapping[str, Any], folder: str) -> DenseLayer:
    file = f"{folder}/config.json"
    inputs, outputs = config.get("in_features"), config.get("out_features")
    if not isinstance(inputs, int) or not isinstance(outputs, int):
        raise StartError(f"{file} does not tell in_features and out_features")
    named = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    return DenseLayer(
        folder, inputs, outputs, config.get("bias") is not False, _activation(named, file)
    )


def _activation(named: object, where: str) -> str:
    name = str(named).rpartition(".")[2].removesuffix("()")
    if name not in ACTIVATIONS:
        raise StartError(
            f"{where} names the activation {named!r}: this engine has {', '.join(ACTIVATIONS)}"
        )
    return name


def _prompt(settings: Mapping[str, Any], path: str) -> str:
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise StartError(f"{_SETTINGS_FILE} of {path} has no prompt {name!r}, its default")
    return str(prompts[name])
