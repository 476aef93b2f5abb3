"""The transformers engine's tokens are those of transformers' own generate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.worker.engines.base import FinishReason
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from tests.contract.engine_client import running
from tests.generation import generate, reference
from tests.models import checkpoint

NEW_TOKENS = 40
DEMO = Path(__file__).parents[2] / "examples" / "demo_model" / "model"
PROMPTS = (
    "The quick brown fox",
    "a",
    "Grüße aus München! 東京から 🙂",
    "Numbers: 0 1 2 3 4 5 6 7 8 9, " * 6,
    "dog. " * 30,
    "Les élèves étudient",
)


def engine(folder: Path, **settings: Any) -> TransformersEngine:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1} | settings
    return TransformersEngine(EngineSettings(str(folder), **given))


GREEDY = {"temperature": 0.0, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": NEW_TOKENS}


async def test_greedy_tokens_equal_generate_alone() -> None:
    folder = checkpoint("llama")
    async with running(engine(folder)) as client:
        for prompt in PROMPTS:
            output = await client.run(prompt, **GREEDY)
            assert output.token_ids == generate(folder, prompt, NEW_TOKENS)


async def test_the_demo_model_generates_the_same_as_by_itself() -> None:
    prompts = ("What is 3 + 4?", "Hello!", "TokenMesh is", "The capital of France")
    async with running(engine(DEMO)) as client:
        outputs = await asyncio.gather(*(client.run(prompt, **GREEDY) for prompt in prompts))
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.token_ids == generate(DEMO, prompt, NEW_TOKENS)


async def test_sampled_tokens_do_not_depend_on_the_batch() -> None:
    folder = checkpoint("llama")
    ways: Sequence[dict[str, Any]] = (
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 7, "repetition_penalty": 1.2},
        {"temperature": 1.0, "min_p": 0.05, "frequency_penalty": 0.5, "presence_penalty": 0.4},
        {"temperature": 0.9, "top_k": 60, "top_p": 0.8, "logit_bias": {5: 3.0, 9: -4.0}},
        {"temperature": 0.0},
    )
    fields = [way | {"max_tokens": 30, "seed": seed} for seed, way in enumerate(ways)]
    async with running(engine(folder)) as client:
        alone = [await client.run(PROMPTS[0], **each) for each in fields]
        together = await asyncio.gather(*(client.run(PROMPTS[0], **each) for each in fields))
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]


async def test_log_probabilities_are_those_of_the_model() -> None:
    import torch

    folder = checkpoint("llama")
    model, tokenizer = reference(folder)
    async with running(engine(folder)) as client:
        output = await client.run(
            "The quick", temperature=0.5, seed=1, top_logprobs=3, max_tokens=10, ignore_eos=True
        )
        neighbour = await client.run("The quick", temperature=0.5, seed=1, max_tokens=10)
    prompt_ids = tokenizer("The quick")["input_ids"]
    row = torch.tensor([prompt_ids + output.token_ids])
    with torch.inference_mode():
        expected = torch.log_softmax(model(row).logits[0, len(prompt_ids) - 1 : -1], -1)
    logprobs = [each for chunk in output.chunks for each in chunk.logprobs]
    assert [each.token_id for each in logprobs] == output.token_ids
    assert all(not chunk.logprobs for chunk in neighbour.chunks)
    for position, each in enumerate(logprobs):
        values, ids = expected[position].topk(3)
        assert each.logprob == pytest.approx(float(expected[position, each.token_id]), abs=1e-4)
        assert [top.token_id for top in each.top] == ids.tolist()
        assert [top.logprob for top in each.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert each.token_bytes.decode(errors="replace") == each.text


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_16_bit_weights_run(dtype: str) -> None:
    async with running(engine(checkpoint("llama"), dtype=dtype)) as client:
        assert client.engine.models[0].dtype == dtype
        output = await client.run("The quick", max_tokens=8, ignore_eos=True)
    assert output.finished.reason is FinishReason.LENGTH
    assert output.finished.completion_tokens == len(output.token_ids) == 8
