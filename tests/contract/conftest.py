"""The engines under contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from services.worker.engines import ENGINES, create
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings
from tests.contract.engine_client import EngineClient, running
from tests.models import CONTEXT_TOKENS, checkpoint

MAX_RUNNING = 4
MAX_WAITING = 3

StartEngine = Callable[[], AbstractAsyncContextManager[EngineClient]]


SERIAL_MODELS = ("t5", "mamba")
"""What the transformers engine runs one sequence after another."""


def _settings(engine: str, model_type: str) -> Any:
    if engine == "scripted":
        return ScriptedSettings(
            max_running=MAX_RUNNING,
            max_waiting=MAX_WAITING,
            context_length_tokens=CONTEXT_TOKENS,
        )
    return EngineSettings(
        str(checkpoint(model_type)),
        device="cpu",
        dtype="float32",
        threads=1,
        max_running=MAX_RUNNING,
        max_waiting=MAX_WAITING,
    )


@pytest.fixture(params=[*ENGINES, *(f"transformers-{each}" for each in SERIAL_MODELS)])
def start_engine(request: pytest.FixtureRequest) -> StartEngine:
    """Starts a new engine."""
    engine, _, model_type = request.param.partition("-")
    return lambda: running(create(engine, _settings(engine, model_type or "llama")))


@pytest.fixture
async def client(start_engine: StartEngine) -> AsyncIterator[EngineClient]:
    """A client of a started engine."""
    async with start_engine() as started:
        yield started
