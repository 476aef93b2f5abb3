"""What transformers itself does with the same model."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.gpu.clock import now_s
from benchmarks.gpu.sizes import Size, random_prompt


def _generate(model: Any, size: Size, batch: int) -> dict[str, Any]:
    """transformers' generate over a batch of prompts of equal length."""
    device = model.device
    prompts = [
        random_prompt(row, size.prompt_tokens, size.shape["vocab_size"]) for row in range(batch)
    ]
    ids = torch.tensor(prompts, device=device)

    def run(tokens: int) -> float:
        began_s = now_s(device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return now_s(device) - began_s

    run(2)
    # Reading the prompts takes as long in both.
    step_s = (run(size.steps) - run(2)) / (size.steps - 2)
    return {"who": "generate", "batch": batch, "step_s": step_s, "tokens_per_s": batch / step_s}


def _continuous_batching(model: Any, size: Size, batch: int) -> dict[str, Any]:
    """transformers' ContinuousBatchingManager with its defaults, prompts included."""
    from transformers import GenerationConfig

    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    )
    manager.start()
    try:
        elapsed_s = 0.0
        # The first round warms up.
        for _ in range(2):
            began_s = time.perf_counter()
            for row in range(batch):
                prompt = random_prompt(row, size.prompt_tokens, size.shape["vocab_size"])
                manager.add_request(prompt, max_new_tokens=size.steps)
            ended = 0
            while ended < batch:
                output = manager.get_result(timeout=120.0)
                if output is None:
                    raise SystemExit("transformers' continuous batching gave no answer")
                ended += output.is_finished()
            elapsed_s = time.perf_counter() - began_s
    finally:
        manager.stop(block=True)
    tokens_per_s = batch * size.steps / elapsed_s
    return {
        "who": "continuous batching",
        "batch": batch,
        "step_s": elapsed_s / size.steps,
        "tokens_per_s": tokens_per_s,
    }


PEERS = {"generate": _generate, "batching": _continuous_batching}
