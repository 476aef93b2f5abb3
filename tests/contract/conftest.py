"""The engines under contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from services.worker.engines import ENGINES, create
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings
from tests.contract.engine_client import EngineClient, running
from tests.encoders import encoder
from tests.models import CONTEXT_TOKENS, checkpoint

MAX_RUNNING = 4
MAX_WAITING = 3

StartEngine = Callable[[], AbstractAsyncContextManager[EngineClient]]


GENERATING = tuple(each for each in ENGINES if each != "encoder")
SERIAL_MODELS = ("t5", "mamba")
"""What the transformers engine runs one sequence after another."""


def _settings(engine: str, model_type: str) -> Any:
    if engine == "scripted":
        return ScriptedSettings(
            max_running=MAX_RUNNING,
            max_waiting=MAX_WAITING,
            context_length_tokens=CONTEXT_TOKENS,
        )
    is_encoder = engine == "encoder"
    settings = EngineSettings(
        str(encoder(model_type) if is_encoder else checkpoint(model_type)),
        device="cpu",
        dtype="float32",
        threads=1,
        max_running=MAX_RUNNING,
        max_waiting=MAX_WAITING,
    )
    return EncoderSettings(settings) if is_encoder else settings


@pytest.fixture(params=[*GENERATING, *(f"transformers-{each}" for each in SERIAL_MODELS)])
def start_engine(request: pytest.FixtureRequest) -> StartEngine:
    """Starts a new engine."""
    engine, _, model_type = request.param.partition("-")
    return lambda: running(create(engine, _settings(engine, model_type or "llama")))


@pytest.fixture
async def client(start_engine: StartEngine) -> AsyncIterator[EngineClient]:
    """A client of a started engine."""
    async with start_engine() as started:
        yield started


@pytest.fixture(params=[*GENERATING, "encoder-bert", "encoder-bert-cross"])
async def any_engine(request: pytest.FixtureRequest) -> AsyncIterator[EngineClient]:
    """A client of a started engine, whether it generates, embeds or scores."""
    engine, _, model_type = request.param.partition("-")
    async with running(create(engine, _settings(engine, model_type or "llama"))) as started:
        yield started
