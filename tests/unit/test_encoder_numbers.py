"""The encoder engine computes what transformers computes, pooled as the checkpoint says."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from services.worker.engines.encoder import EncoderEngine, EncoderSettings
from services.worker.engines.encoding import EmbedCall, ScoreCall
from services.worker.engines.settings import EngineSettings
from tests.encoders import HIDDEN, encoder
from tests.models import checkpoint

TEXTS = [
    "The fox.",
    "Vectors of like texts lie near each other, and others far.",
    "A cross-encoder reads the query and the document together: numbers 0 1 2 3.",
    "x",
    "Workers serve encoder models.",
]
TOLERANCE = 1e-5


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[EncoderEngine]:
    own = {name: settings.pop(name) for name in ("dtype", "quantization") if name in settings}
    given = EngineSettings(str(folder), device="cpu", threads=1, model_names=("m",), **own)
    engine = EncoderEngine(EncoderSettings(given, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def vectors_of(engine: EncoderEngine, texts: Sequence[Any], **fields: Any) -> torch.Tensor:
    embedded = await engine.embed(EmbedCall("r", "m", texts, **fields))
    return torch.tensor(embedded.vectors)


def hidden(folder: Path, text: str) -> torch.Tensor:
    """`[tokens, size]`: what transformers makes of one text by itself."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt"))
    vectors: torch.Tensor = states.last_hidden_state[0].clone()
    return vectors


def unit(vector: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vector, dim=0)


def dense(folder: Path, vector: torch.Tensor) -> torch.Tensor:
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    projected: torch.Tensor = weights["linear.weight"] @ vector + weights["linear.bias"]
    return projected.tanh()


POOLED: dict[str, Callable[[Path, torch.Tensor], torch.Tensor]] = {
    "bert": lambda folder, states: states.mean(0),
    "bert-plain": lambda folder, states: states.mean(0),
    "bert-cls-dense": lambda folder, states: dense(folder, states[0]),
    "bert-max": lambda folder, states: states.amax(0),
    "xlm-roberta": lambda folder, states: states[0],
    "mpnet": lambda folder, states: states.mean(0),
    "modernbert": lambda folder, states: states.mean(0),
    "qwen3": lambda folder, states: states[-1],
}


@pytest.mark.parametrize("name", POOLED)
async def test_vectors_are_those_of_transformers(name: str) -> None:
    folder = encoder(name)
    expected = [unit(POOLED[name](folder, hidden(folder, text))) for text in TEXTS]
    async with running(folder) as engine:
        vectors = await vectors_of(engine, TEXTS)
        (model,) = engine.models
    assert model.embedding_dimensions == vectors.shape[1]
    assert (vectors - torch.stack(expected)).abs().max() < TOLERANCE


async def test_the_prompt_of_a_checkpoint_stands_before_each_text() -> None:
    folder = encoder("bert-prompt")
    expected = unit(hidden(folder, "Vectors of texts").mean(0))
    async with running(folder) as engine:
        (vector,) = await vectors_of(engine, ["texts"])
    assert (vector - expected).abs().max() < TOLERANCE


async def test_a_model_that_generates_embeds_by_its_hidden_states() -> None:
    """As FastChat embeds, where the encoder engine is asked for."""
    folder = checkpoint()
    expected = unit(hidden(folder, TEXTS[1]).mean(0))
    async with running(folder, pooling="mean") as engine:
        vector = (await vectors_of(engine, TEXTS))[1]
    assert (vector - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("pooling", ["cls", "last", "max", "mean"])
async def test_pooling_may_be_chosen(pooling: str) -> None:
    folder = encoder("bert")
    states = hidden(folder, TEXTS[1])
    expected = {
        "cls": states[0],
        "last": states[-1],
        "max": states.amax(0),
        "mean": states.mean(0),
    }[pooling]
    async with running(folder, pooling=pooling) as engine:
        (vector,) = await vectors_of(engine, [TEXTS[1]])
    assert (vector - unit(expected)).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["bert-cross", "xlm-roberta-cross"])
async def test_scores_are_those_of_transformers(name: str) -> None:
    folder = encoder(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            logit = model(**tokenizer("the query", text, return_tensors="pt")).logits.item()
        expected.append(1 / (1 + math.exp(-logit)))
    async with running(folder) as engine:
        scored = await engine.score(ScoreCall("r", "m", ["the query"], TEXTS))
        pairs = await engine.score(ScoreCall("r", "m", ["the query"] * len(TEXTS), TEXTS))
        assert engine.models[0].capabilities == {"SCORE"}
    assert scored.scores == pytest.approx(expected, abs=TOLERANCE)
    assert pairs.scores == pytest.approx(scored.scores, abs=TOLERANCE)
    lengths = [len(tokenizer("the query", text)["input_ids"]) for text in TEXTS]
    assert scored.prompt_tokens == sum(lengths)


async def test_an_embedding_model_scores_by_the_cosine() -> None:
    async with running(encoder()) as engine:
        vectors = await vectors_of(engine, ["query", *TEXTS])
        scored = await engine.score(ScoreCall("r", "m", ["query"], TEXTS))
    assert scored.scores == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert", "qwen3"])
async def test_a_text_gets_its_vector_whatever_runs_beside_it(name: str) -> None:
    draw = random.Random(3)
    words = " ".join(TEXTS).split()
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(48)]
    async with running(encoder(name), batch_tokens=256) as engine:
        together = await vectors_of(engine, texts)
        batches = engine.counters().steps
        alone = torch.cat([await vectors_of(engine, [text]) for text in texts])
    assert batches is not None
    assert batches < len(texts) / 4
    assert (together - alone).abs().max() < TOLERANCE


async def test_token_ids_are_read_as_they_are() -> None:
    folder = encoder()
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[1])["input_ids"]
    async with running(folder) as engine:
        by_text, by_ids = await vectors_of(engine, [TEXTS[1], tuple(ids)])
        bare = await vectors_of(engine, [tuple(ids[1:-1])])
        assert await engine.tokenize("m", TEXTS[1], add_special_tokens=True) == ids
        text = await engine.detokenize("m", ids, skip_special_tokens=True)
    assert torch.equal(by_text, by_ids)
    assert (bare - by_ids).abs().max() > 1e-3
    assert text.startswith("vectors of like")


async def test_dimensions_cut_vectors_and_normalise_them_again() -> None:
    async with running(encoder()) as engine:
        (whole,) = await vectors_of(engine, ["text"])
        (cut,) = await vectors_of(engine, ["text"], dimensions=5)
        (same,) = await vectors_of(engine, ["text"], dimensions=HIDDEN)
    assert (cut - unit(whole[:5])).abs().max() < TOLERANCE
    assert (same - whole).abs().max() < TOLERANCE


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "int8"}])
async def test_smaller_weights_stay_near(options: dict[str, str]) -> None:
    async with running(encoder()) as exact:
        expected = await vectors_of(exact, TEXTS)
        assert exact.models[0].dtype == "float32"
    async with running(encoder(), **options) as engine:
        vectors = await vectors_of(engine, TEXTS)
        (model,) = engine.models
    assert (model.dtype, model.quantization) != ("float32", "")
    assert (vectors * expected).sum(1).min() > 0.98
