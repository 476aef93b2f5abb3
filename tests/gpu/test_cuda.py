"""What must hold on a CUDA device. Deselected where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from tests.contract.engine_client import EngineClient, running
from tests.generation import reference
from tests.models import checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

PROMPTS = ("The quick brown fox", "a", "Numbers: 0 1 2 3 4 5 6 7 8 9, " * 6, "dog. " * 30)
GREEDY = {"temperature": 0.0, "top_k": 0, "max_tokens": 40}
FAMILIES = ("llama", "qwen3", "mistral", "gemma2", "gpt2")


def engine(model_type: str = "llama", **settings: Any) -> TransformersEngine:
    given: dict[str, Any] = {"device": "cuda", "dtype": "float32"} | settings
    return TransformersEngine(
        EngineSettings(str(checkpoint(model_type)), kv_memory_bytes=2**26, **given)
    )


async def together(client: EngineClient, **fields: Any) -> list[list[int]]:
    outputs = await asyncio.gather(*(client.run(prompt, **fields) for prompt in PROMPTS))
    return [each.token_ids for each in outputs]


@pytest.mark.parametrize("model_type", FAMILIES)
async def test_greedy_tokens_equal_generate(model_type: str) -> None:
    model, tokenizer = reference(checkpoint(model_type))
    model = model.to("cuda")
    wanted = []
    try:
        for prompt in PROMPTS:
            ids = tokenizer(prompt, return_tensors="pt").input_ids.to("cuda")
            with torch.inference_mode():
                row = model.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)
            wanted.append(row[0, ids.shape[1] :].tolist())
    finally:
        model.to("cpu")
    async with running(engine(model_type)) as client:
        alone = [(await client.run(prompt, **GREEDY)).token_ids for prompt in PROMPTS]
        assert alone == wanted
        assert await together(client, **GREEDY) == wanted


async def test_graphs_choose_the_tokens_of_plain_steps() -> None:
    outputs = []
    for cuda_graphs in (True, False):
        async with running(engine(cuda_graphs=cuda_graphs)) as client:
            outputs.append(
                [
                    await together(client, **GREEDY),
                    await together(client, max_tokens=40, seed=3, top_p=0.9, temperature=1.2),
                ]
            )
            graphs = client.engine._assembly.step_loop._runner._graphs  # type: ignore[attr-defined]
            assert (graphs is not None and bool(graphs._steps)) is cuda_graphs
    assert outputs[0] == outputs[1]


async def test_a_seed_gives_the_same_tokens_alone_and_among_others() -> None:
    fields = {"max_tokens": 40, "seed": 5, "top_k": 50, "min_p": 0.01}
    async with running(engine()) as client:
        alone = [(await client.run(prompt, **fields)).token_ids for prompt in PROMPTS]
        assert await together(client, **fields) == alone


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
async def test_16_bit_types_run(dtype: str) -> None:
    async with running(engine(dtype=dtype)) as client:
        assert all(await together(client, **GREEDY))


async def test_goes_on_after_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.worker.engines.transformers.model_runner import ModelRunner

    async with running(engine()) as client:
        wanted = await together(client, **GREEDY)
        run, fails = ModelRunner.run, [True]

        def run_out(self: ModelRunner, step: Any) -> torch.Tensor:
            if len(step) > 1 and fails:
                fails.clear()
                torch.empty(2**46, dtype=torch.int8, device="cuda")
            return run(self, step)

        monkeypatch.setattr(ModelRunner, "run", run_out)
        assert await together(client, **GREEDY) == wanted
        assert not fails
