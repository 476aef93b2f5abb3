"""Measures the default engine's steps on a GPU: python -m benchmarks.gpu --help.

The model is a Llama of 8 billion random weights, made on the device: its answers mean nothing, its
work is that of any model of its shape. A step is measured as the engine's thread computes it:
schedule, run, sample, book; without detokenizing, and without a server.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, results
from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.device import release_cached
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
PREFIX_SEED = 11
WARM_UP_STEPS = 5
BANDWIDTH_REPEATS = 20


@dataclass(frozen=True)
class Size:
    """How large the model, and what is asked of it, are."""

    shape: dict[str, Any]
    dtype: torch.dtype
    batches: tuple[int, ...]
    prompt_tokens: int
    steps: int
    prefill_tokens: int
    step_tokens: int
    copied_bytes: int
    peers: tuple[str, ...] = field(default=("generate", "batching"))


FULL = Size(
    {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128_256,
        "max_position_embeddings": 8192,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    },
    torch.bfloat16,
    (1, 2, 4, 8, 16, 32, 64, 128, 256),
    prompt_tokens=128,
    steps=64,
    prefill_tokens=4096,
    step_tokens=2048,
    copied_bytes=4 * 1024**3,
)
TINY = Size(
    {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 256,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    torch.float32,
    (1, 3),
    prompt_tokens=16,
    steps=12,
    prefill_tokens=96,
    step_tokens=64,
    copied_bytes=1024**2,
    peers=("generate",),
)


def main(arguments: Sequence[str] | None = None, *, folder: Path = results.FOLDER) -> None:
    """Measures, prints, and keeps the report.

    Raises:
        SystemExit: there is no GPU, and the size is not the tiny one.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on a CPU too")
    parser.add_argument("--batches", help="numbers of sequences, such as 1,8,64")
    parser.add_argument("--no-peers", action="store_true", help="only the engine")
    parser.add_argument("--no-cuda-graphs", action="store_true", help="each operation anew")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not given.tiny:
        raise SystemExit(
            "there is no GPU that torch can use: this measures one. --tiny tries it on a CPU"
        )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    size = TINY if given.tiny else FULL
    batches = tuple(map(int, given.batches.split(","))) if given.batches else size.batches
    content = measure(
        size,
        device,
        batches,
        peers=() if given.no_peers else size.peers,
        cuda_graphs=not given.no_cuda_graphs,
    )
    target, report = results.keep(content, markdown, "-gpu", folder=folder)
    print(f"{report}\nkept as {target.name}")


def measure(
    size: Size,
    device: torch.device,
    batches: Sequence[int],
    *,
    peers: Sequence[str],
    cuda_graphs: bool,
) -> dict[str, Any]:
    """All that the report is made of."""
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    bandwidth = copy_bandwidth(size.copied_bytes, device)
    model = make_model(size, device)
    weight_bytes = sum(each.nbytes for each in model.parameters())
    runs = []
    absent = {}
    attention = model.config._attn_implementation
    for peer in peers:
        try:
            for batch in batches:
                runs.append(PEERS[peer](model, size, batch))
                print(runs[-1], flush=True)
        except Exception as error:
            # What a peer cannot do is a result, and no reason to lose the others.
            absent[peer] = repr(error)
        model.set_attn_implementation(attention)
        gc.collect()
        release_cached(device)
    engine = Engine(model, size, device, max_running=max(batches), cuda_graphs=cuda_graphs)
    prefill = engine.prefill_rate()
    outputs = {}
    for batch in batches:
        run, outputs[batch] = engine.decode(batch)
        # Embeddings are looked up, not read.
        read = weight_bytes - model.get_input_embeddings().weight.nbytes
        floor_s = read / bandwidth
        runs.append({**run, "floor_share": floor_s / run["step_s"]})
        print(runs[-1], flush=True)
    first = outputs[batches[0]]
    return {
        "taken_at": taken_at,
        "machine": machine.describe(("torch", "transformers")),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(size.dtype).removeprefix("torch."),
        "shape": size.shape,
        "weight_bytes": weight_bytes,
        "copy_bytes_per_s": bandwidth,
        "cuda_graphs": cuda_graphs,
        "prompt_tokens": size.prompt_tokens,
        "steps": size.steps,
        "prefill": prefill,
        "runs": runs,
        "absent": absent,
        "equal_tokens": {str(batch): _equal(first, made) for batch, made in outputs.items()},
    }


def make_model(size: Size, device: torch.device) -> Any:
    """The model, whose weights are made where they stay."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**size.shape, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=size.dtype).eval()


def copy_bandwidth(size_bytes: int, device: torch.device) -> float:
    """Bytes per second of a copy within the device's memory, read and written bytes counted."""
    source = torch.zeros(size_bytes // 2, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(BANDWIDTH_REPEATS):
        began_s = _now(device)
        target.copy_(source)
        times.append(_now(device) - began_s)
    return 2 * source.nbytes / statistics.median(times)


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
            began_s = _now(self._device)
            while scheduler.running[0].uncomputed_tokens > 1 if scheduler.running else True:
                self._step(scheduler)
            times.append(_now(self._device) - began_s)
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
        prompt = _prompt(row, prompt_tokens, self._loaded.vocabulary_size)
        request = Request(row, "", tuple(prompt), "", sampling, None, 0, float(row))
        output = Output(ByteDetokenizer(lambda _: b""), sampling, 10**6, frozenset())
        return Running(request, 0, output, None)


def _generate(model: Any, size: Size, batch: int) -> dict[str, Any]:
    """transformers' generate over a batch of prompts of equal length."""
    device = model.device
    prompts = [_prompt(row, size.prompt_tokens, size.shape["vocab_size"]) for row in range(batch)]
    ids = torch.tensor(prompts, device=device)

    def run(tokens: int) -> float:
        began_s = _now(device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return _now(device) - began_s

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
                prompt = _prompt(row, size.prompt_tokens, size.shape["vocab_size"])
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


def markdown(content: dict[str, Any]) -> str:
    """The report."""
    return "\n".join(_lines(content))


def _lines(content: dict[str, Any]) -> Iterator[str]:
    graphs = "with" if content["cuda_graphs"] else "without"
    yield "# The default engine on a GPU\n"
    yield f"{content['taken_at']}, {content['device']}, {content['dtype']}, {graphs} CUDA graphs.\n"
    yield results.machine_lines(content["machine"])
    yield (
        f"\nA Llama of {content['weight_bytes'] / 1e9:.2f} GB of random weights; "
        f"{content['prompt_tokens']} tokens in, {content['steps']} out. Copying within the "
        f"device's memory goes at {content['copy_bytes_per_s'] / 1e9:.0f} GB/s: the floor of a "
        "step is the time of reading the weights at that. Continuous batching's figures include its prompts.\n"
    )
    prefill = content["prefill"]
    rate = f"{prefill['tokens_per_s']:.0f} tokens/s"
    yield f"A prompt of {prefill['tokens']} tokens is read at {rate}.\n"
    for peer, error in content["absent"].items():
        yield f"{peer} did not run: `{error}`\n"
    yield "| | sequences | step ms | tokens/s | floor of a step |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for run in content["runs"]:
        share = f"{run['floor_share']:.0%}" if "floor_share" in run else ""
        yield (
            f"| {run['who']} | {run['batch']} | {run['step_s'] * 1e3:.2f} "
            f"| {run['tokens_per_s']:.0f} | {share} |"
        )
    yield "\nTokens that a seeded sequence has in common with its output in the first batch:\n"
    for batch, equal in content["equal_tokens"].items():
        yield f"- among {batch}: {equal} of {content['steps']}"
    yield ""


def _prompt(row: int, tokens: int, vocabulary: int) -> list[int]:
    source = torch.Generator().manual_seed(PREFIX_SEED + row)
    ids: list[int] = torch.randint(vocabulary, (tokens,), generator=source).tolist()
    return ids


def _equal(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two outputs begin with in common."""
    count = 0
    for first, second in zip(one, other, strict=True):
        if first != second:
            break
        count += 1
    return count


def _now(device: torch.device) -> float:
    """The time when the device has computed all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
