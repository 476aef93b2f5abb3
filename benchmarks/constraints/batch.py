"""What outputs that are held to a form cost the batch that they run in.

Rounds of as many sequences as the batch take turns: none of them held, one, half, all. So the
ratios are of one run, whatever else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine.model import ensure_model
from services.worker.engines.base import EngineRequest, Finished
from services.worker.engines.forms import Json
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine

BATCH = 16
HELD = (0, 1, 8, 16)
COMPLETION_TOKENS = 64
ROUNDS = 5
"""Of each kind, after one that is not counted."""
MODELS: dict[str, Callable[[], Path]] = {
    "demo model": lambda: Path("examples/demo_model/model"),
    "Llama of 42 million": ensure_model,
}
FORM = Json(
    json.dumps(
        {
            "type": "array",
            "minItems": COMPLETION_TOKENS,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer"},
                    "kind": {"enum": ["one", "another", "a third"]},
                },
                "required": ["name", "age", "kind"],
                "additionalProperties": False,
            },
        }
    )
)
"""Has no end within the tokens of a round."""


async def measure(name: str, count: int = ROUNDS) -> dict[str, Any]:
    """Tokens per second of each kind of sequence, by how many are held to a form."""
    settings = EngineSettings(str(MODELS[name]()), device="cpu", dtype="float32", max_running=BATCH)
    engine = TransformersEngine(settings)
    await engine.start()
    rounds = _Rounds(engine)
    taken: dict[int, list[dict[str, float]]] = defaultdict(list)
    disturbance = machine.Disturbance()
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(rounds.read())
            for number in range(count + 1):
                for held in HELD:
                    figures = await rounds.take(held)
                    if number:
                        taken[held].append(figures)
            counters = engine.counters()
            await engine.stop()
            await reading
    finally:
        await engine.stop()
    return {
        "model": name,
        "rounds": count,
        "vocabulary": engine.models[0].vocabulary_size,
        "others_cores": disturbance.cores(),
        "mask_s": counters.mask_s,
        "masks": counters.masks,
        "kinds": {held: _medians(each) for held, each in taken.items()},
    }


class _Rounds:
    """Requests of one round, and what comes of them."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._ends: dict[Any, asyncio.Future[Finished]] = {}
        self._count = 0

    async def read(self) -> None:
        """Takes what the engine tells, until it stops."""
        async for output in self._engine.steps():
            for each in output.events:
                if isinstance(each.event, Finished):
                    self._ends[each.key].set_result(each.event)

    async def take(self, held: int) -> dict[str, float]:
        """Runs a round in which so many sequences are held to the form."""
        self._ends = {}
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(BATCH):
            self._count += 1
            fields: dict[str, Any] = {
                "max_tokens": COMPLETION_TOKENS,
                "ignore_eos": True,
                "seed": self._count,
            }
            if number < held:
                fields["constraint"] = FORM
            key = (number < held, self._count)
            self._ends[key] = loop.create_future()
            prompt = tuple(10 + (number * 7 + place) % 200 for place in range(16))
            model = self._engine.models[0].name
            await self._engine.submit(EngineRequest(key, str(key), model, prompt, fields))
        ends = {key: await end for key, end in self._ends.items()}
        elapsed_s = loop.time() - began_s
        assert all(end.completion_tokens == COMPLETION_TOKENS for end in ends.values())
        figures = {"all": BATCH * COMPLETION_TOKENS / elapsed_s}
        for kind, name in ((True, "held"), (False, "free")):
            rates = [
                (COMPLETION_TOKENS - 1) / end.timing.decode_s
                for key, end in ends.items()
                if key[0] is kind
            ]
            if rates:
                figures[name] = statistics.mean(rates)
        return figures


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}
