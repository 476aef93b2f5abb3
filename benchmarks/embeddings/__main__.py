"""Measures texts per second: batched, one by one, and transformers by itself.

python -m benchmarks.embeddings [--model FOLDER] [--texts 256] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.embeddings import model, ways
from benchmarks.embeddings.report import markdown
from benchmarks.results import FOLDER, keep
from services.worker.engines.encoder import EncoderEngine, EncoderSettings
from services.worker.engines.settings import EngineSettings

PACKAGES = ("tokenmesh", "torch", "transformers", "tokenizers")
BATCH_TOKENS = (512, 1024, 2048, 4096, 8192)
TOLERANCE = 1e-4


async def _engine(folder: Path, threads: int, batch_tokens: int | None = None) -> EncoderEngine:
    settings = EngineSettings(
        str(folder), device="cpu", threads=threads, max_running=256, max_waiting=1024
    )
    engine = EncoderEngine(EncoderSettings(settings, batch_tokens=batch_tokens, pooling="mean"))
    await engine.start()
    return engine


async def _rounds(ways_by_name: dict[str, ways.Way], texts: list[str], rounds: int) -> list[Any]:
    """Each way in turn, so many times: what disturbs the machine disturbs all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in ways_by_name}
    reference: ways.Vectors | None = None
    for number in range(rounds + 1):
        for name, way in ways_by_name.items():
            began_s = time.perf_counter()
            vectors = await way(texts)
            elapsed_s = time.perf_counter() - began_s
            reference = reference or vectors
            _require_same(name, vectors, reference)
            # The first round warms up.
            if number:
                taken[name].append(len(texts) / elapsed_s)
                print(f"{name:40} {len(texts) / elapsed_s:8.1f} texts/s", flush=True)
    return [
        {"way": name, "texts_per_s": round(statistics.median(each), 1), "rounds": each}
        for name, each in taken.items()
    ]


def _require_same(name: str, vectors: ways.Vectors, reference: ways.Vectors) -> None:
    differences = (
        abs(a - b)
        for one, other in zip(vectors, reference, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    if not max(differences) < TOLERANCE:
        raise SystemExit(f"{name} computes other vectors: its speed says nothing")


async def _measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    texts = model.texts(arguments.texts)
    plain = ways.Plain(folder, arguments.threads)
    engine = await _engine(folder, arguments.threads)
    served = ways.Served(engine)
    compared = await _rounds(
        {
            "transformers, one by one": plain.one_by_one,
            f"transformers, batches of {ways.BATCH_TEXTS}": plain.in_batches,
            "engine, one caller, one by one": served.one_by_one,
            f"engine, {ways.CALLERS} callers, one by one": served.of_many_callers,
            "engine, one call": served.in_one_call,
        },
        texts,
        arguments.rounds,
    )
    await engine.stop()
    engines = {tokens: await _engine(folder, arguments.threads, tokens) for tokens in BATCH_TOKENS}
    by_tokens = await _rounds(
        {str(tokens): ways.Served(each).in_one_call for tokens, each in engines.items()},
        texts,
        arguments.rounds,
    )
    for each in engines.values():
        await each.stop()
    return {"compared": compared, "batch_tokens": by_tokens}


def main() -> None:
    """Measures, keeps the result and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint that pools by the mean")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    taken_at = datetime.now(UTC)
    described = machine.describe(PACKAGES)
    if machine.is_busy():
        print("This machine is busy with something else: the numbers will tell more of that.")
    folder = arguments.model or model.make()
    results = {
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "machine": described,
        "model": folder.name,
        "texts": arguments.texts,
        "threads": arguments.threads,
        **asyncio.run(_measure(folder, arguments)),
    }
    target, text = keep(results, markdown, "-embeddings", folder=FOLDER)
    print(f"\n{text}\n{target}")


if __name__ == "__main__":
    main()
