"""The engine's steps, as its thread computes them, but for text."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.gpu.clock import now_s
from benchmarks.gpu.sizes import Size, random_prompt
from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.loading import Checkpoint
from services.worker.engines.transformers.checkpoint.proof import LoadedModel, prepare_model
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.sampling.step import launch_sampling
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.scheduling.sequence import Request
from services.worker.engines.transformers.scheduling.sequence import Sequence as Running
from services.worker.engines.transformers.text.output import Output

SEEDED = Sampling(temperature=0.8, top_p=0.95, seed=7)
WARM_UP_STEPS = 5


class Engine:
    """The engine's parts, put together as its thread has them, but for text.

    Args:
        model: its attention and its linear layers are replaced.
        size: what is asked of it.
        device: where it is.
        max_running: sequences that may run.
        cuda_graphs: see EngineSettings.
    """

    def __init__(
        self, model: Any, size: Size, device: torch.device, *, max_running: int, cuda_graphs: bool
    ) -> None:
        self._size = size
        self._device = device
        context_tokens = size.prefill_tokens + size.prompt_tokens + size.steps
        checkpoint = Checkpoint(
            model=model,
            tokenizer=None,
            name="random",
            revision="",
            device=device,
            dtype=size.dtype,
            quantization="",
            device_map={},
            context_length_tokens=context_tokens,
            end_ids=frozenset(),
            sampling_defaults={},
        )
        settings = EngineSettings(
            "random",
            max_running=max_running,
            context_length_tokens=context_tokens,
            cuda_graphs=cuda_graphs,
        )
        self._loaded: LoadedModel = prepare_model(checkpoint, settings)
        self._sampler = Sampler(self._loaded.vocabulary_size, device)

    def prefill_rate(self) -> dict[str, float]:
        """Prompt tokens per second, in chunks as the engine cuts them."""
        times = []
        for _ in range(3):
            scheduler = self._scheduler()
            scheduler.add(self._sequence(0, self._size.prefill_tokens, Sampling(temperature=0.0)))
            began_s = now_s(self._device)
            while scheduler.running[0].uncomputed_tokens > 1 if scheduler.running else True:
                self._step(scheduler)
            times.append(now_s(self._device) - began_s)
        tokens = self._size.prefill_tokens
        return {"tokens": tokens, "tokens_per_s": tokens / min(times)}

    def decode(self, batch: int) -> tuple[dict[str, Any], list[int]]:
        """The time of a step that decodes so many sequences, and what the first of them made."""
        scheduler = self._scheduler()
        running = [
            self._sequence(
                row, self._size.prompt_tokens, SEEDED if row == 0 else Sampling(seed=row)
            )
            for row in range(batch)
        ]
        for each in running:
            scheduler.add(each)
        while any(not each.output.token_ids for each in running):
            self._step(scheduler)
        for _ in range(WARM_UP_STEPS):
            self._step(scheduler)
        times = []
        for _ in range(self._size.steps - WARM_UP_STEPS):
            began_s = time.perf_counter()
            made = self._step(scheduler)
            times.append(time.perf_counter() - began_s)
            assert made == batch
        step_s = statistics.median(times)
        run = {"who": "TokenMesh", "batch": batch, "step_s": step_s, "tokens_per_s": batch / step_s}
        return run, running[0].output.token_ids[: self._size.steps]

    def _scheduler(self) -> Scheduler:
        plan = self._loaded.plan
        pool = BlockPool(plan.blocks, plan.block_tokens)
        return Scheduler(plan.slots, self._size.step_tokens, pool, prefix_cache=False)

    def _step(self, scheduler: Scheduler) -> int:
        """One step. Returns how many tokens it made. Waits for them, and so for the device."""
        works = scheduler.schedule().works
        outcomes = launch_sampling(self._sampler, works, self._loaded.runner.run(works))()
        made = 0
        for work, outcome in zip(works, outcomes, strict=True):
            scheduler.advance(work)
            if outcome is not None:
                assert isinstance(outcome, Sampled), outcome
                work.sequence.output.take(outcome.token_id)
                made += 1
        return made

    def _sequence(self, row: int, prompt_tokens: int, sampling: Sampling) -> Running:
        prompt = random_prompt(row, prompt_tokens, self._loaded.vocabulary_size)
        request = Request(row, "", tuple(prompt), "", sampling, None, 0, float(row))
        output = Output(ByteDetokenizer(lambda _: b""), sampling, 10**6, frozenset())
        return Running(request, 0, output, None)
