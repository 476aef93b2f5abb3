"""Measures the default engine's steps on a GPU: python -m benchmarks.gpu --help.

The model is a Llama of 8 billion random weights, made on the device: its answers mean nothing, its
work is that of any model of its shape. A step is measured as the engine's thread computes it:
schedule, run, sample, book; without detokenizing, and without a server.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, results
from benchmarks.gpu.clock import now_s
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.report import markdown
from benchmarks.gpu.sizes import FULL, TINY, Size
from benchmarks.gpu.steps import Engine
from services.worker.engines.transformers.checkpoint.device import release_cached

BANDWIDTH_REPEATS = 20


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
        began_s = now_s(device)
        target.copy_(source)
        times.append(now_s(device) - began_s)
    return 2 * source.nbytes / statistics.median(times)


def _equal(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two outputs begin with in common."""
    count = 0
    for first, second in zip(one, other, strict=True):
        if first != second:
            break
        count += 1
    return count


if __name__ == "__main__":
    main()
