"""Models that run one sequence after another: what is kept of each, and what is told of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from services.mesh.errors import OutOfMemoryError, StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.attention import function
from services.worker.engines.transformers.checkpoint.memory import LayerShape
from services.worker.engines.transformers.serial.generation import Generation
from services.worker.engines.transformers.serial.module_state import ModuleState
from services.worker.engines.transformers.serial.probe import probe
from services.worker.engines.transformers.serial.runner import SerialRunner
from tests.contract.engine_client import running
from tests.generation import generate, reference
from tests.models import CONTEXT_TOKENS, checkpoint, edit_config

PROMPT = (7, 20, 33, 46, 59)
OUTPUT = (5, 9, 13, 17)
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 20}
STATELESS = ModuleState((), ())


def engine(folder: Path, **settings: Any) -> TransformersEngine:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1} | settings
    return TransformersEngine(EngineSettings(str(folder), **given))


async def refusal(folder: Path, **settings: Any) -> str:
    one = engine(folder, **settings)
    with pytest.raises(StartError) as refused:
        await one.start()
    await one.stop()
    return str(refused.value)


class TestChoice:
    @pytest.mark.parametrize(
        ("model_type", "reason"),
        [
            ("t5", "an encoder and a decoder"),
            ("bloom", "attention cannot be replaced"),
            ("qwen3_next", "linear_attention"),
            ("llama4_text", "chunked_attention"),
        ],
    )
    async def test_the_log_says_that_it_is_slower_and_why(
        self, model_type: str, reason: str
    ) -> None:
        with capture_logs() as lines:
            async with running(engine(checkpoint(model_type))) as client:
                (model,) = client.engine.models
        assert model.execution == "serial"
        (warning,) = [line for line in lines if line["log_level"] == "warning"]
        assert "slower" in warning["event"]
        assert (warning["model_type"], reason in warning["reason"]) == (model_type, True)
        (loaded,) = [line for line in lines if line["event"] == "model loaded"]
        assert loaded["execution"] == "serial"

    async def test_a_model_that_runs_in_batches_is_not_slowed(self) -> None:
        with capture_logs() as lines:
            async with running(engine(checkpoint("llama"))) as client:
                assert client.engine.models[0].execution == "paged"
        assert not [line for line in lines if line["log_level"] == "warning"]

    async def test_layers_that_a_configuration_adds_are_not_run_in_batches(
        self, tmp_path: Path
    ) -> None:
        folder = edit_config(checkpoint("qwen3"), tmp_path / "m", attention_chunk_size=16)
        async with running(engine(folder)) as client:
            assert client.engine.models[0].execution == "serial"

    async def test_a_window_that_only_the_mask_knows_is_not_lost(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def untold(*sizes: int) -> LayerShape:
            return LayerShape(*sizes[:4])

        monkeypatch.setattr(function, "LayerShape", untold)
        async with running(engine(checkpoint("mistral"))) as client:
            assert client.engine.models[0].execution == "serial"
            output = await client.run("The quick brown fox", **GREEDY)
        assert output.token_ids == generate(checkpoint("mistral"), "The quick brown fox", 20)

    async def test_state_that_nobody_can_keep_apart_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ModuleState, "find", lambda *_: STATELESS)
        line = await refusal(checkpoint("recurrent_gemma"))
        assert "beside another sequence" in line


class TestContext:
    @pytest.mark.parametrize(
        ("changes", "asked", "tokens"),
        [
            ({}, None, CONTEXT_TOKENS),
            ({"context_length": 64}, None, 64),
            ({"context_length": 64}, 2000, 2000),
            ({"max_position_embeddings": 100}, None, 100),
        ],
    )
    async def test_a_model_without_an_end_of_positions_reads_what_it_was_trained_with_or_is_asked(
        self, tmp_path: Path, changes: dict[str, int], asked: int | None, tokens: int
    ) -> None:
        folder = edit_config(checkpoint("mamba"), tmp_path / "m", **changes)
        async with running(engine(folder, context_length_tokens=asked)) as client:
            assert client.engine.models[0].context_length_tokens == tokens

    async def test_beyond_its_last_position_a_model_does_not_go(self, tmp_path: Path) -> None:
        folder = edit_config(checkpoint("mamba"), tmp_path / "m", max_seq_len=100)
        assert "made for 100" in await refusal(folder, context_length_tokens=101)


class TestGeneration:
    @pytest.mark.parametrize("model_type", ["t5", "mamba", "recurrent_gemma", "bloom"])
    @torch.inference_mode()
    def test_an_output_so_far_is_replayed(self, model_type: str) -> None:
        model, _ = reference(checkpoint(model_type))
        modules = probe(model, 400).modules
        stepwise = Generation(model, modules, PROMPT, ())
        rows = [stepwise.next_logits()]
        rows += [stepwise.next_logits([token_id]) for token_id in OUTPUT]
        for count, expected in enumerate(rows):
            replayed = Generation(model, modules, PROMPT, OUTPUT[:count])
            assert torch.allclose(replayed.next_logits(), expected, atol=1e-3)
            assert replayed.computed_tokens == len(PROMPT) + count

    @torch.inference_mode()
    def test_an_encoder_reads_the_prompt_once(self) -> None:
        model, _ = reference(checkpoint("t5"))
        reads = []
        hook = model.get_encoder().register_forward_hook(lambda *_: reads.append(True))
        generation = Generation(model, STATELESS, PROMPT, OUTPUT[:1])
        generation.next_logits()
        for token_id in OUTPUT[1:]:
            generation.next_logits([token_id])
        hook.remove()
        assert reads == [True]

    async def test_rules_of_the_checkpoint_hold(self, tmp_path: Path) -> None:
        folder = tmp_path / "m"
        shutil.copytree(checkpoint("t5"), folder)
        plain = generate(folder, "The quick", 20)
        reference.cache_clear()
        generate.cache_clear()
        path = folder / "generation_config.json"
        rules = {"forced_bos_token_id": 77, "suppress_tokens": plain[1:3], "num_beams": 4}
        path.write_text(json.dumps(json.loads(path.read_text()) | rules))
        async with running(engine(folder)) as client:
            output = await client.run("The quick", **GREEDY)
        assert output.token_ids[0] == 77
        assert not set(output.token_ids) & set(plain[1:3])


class TestMemory:
    def test_a_state_of_fixed_size_is_told_from_keys_and_values(self) -> None:
        mamba = probe(reference(checkpoint("mamba"))[0], 400).footprint
        bloom = probe(reference(checkpoint("bloom"))[0], 400).footprint
        # Of each token, keys and values of two layers, float32; and a few numbers to count it.
        assert 0 <= bloom.token_bytes - 2 * 2 * 64 * 4 <= 16
        assert bloom.fixed_bytes == 0
        # Two layers, each with 128 channels: 4 of convolution and 4 of state, float32.
        assert mamba.fixed_bytes == pytest.approx(2 * 128 * (4 + 4) * 4, rel=0.05)
        assert mamba.token_bytes <= 16

    async def test_as_many_run_as_have_room_for_their_states(self) -> None:
        settings = {"max_running": 16, "context_length_tokens": 64}
        async with running(engine(checkpoint("mamba"), kv_memory_bytes=40_000, **settings)) as one:
            fewer = one.engine.capacity.max_running
            outputs = [await one.submit("hello", **GREEDY) for _ in range(6)]
            ends = [await one.end_of(key) for key in outputs]
        assert 1 <= fewer < 16
        assert len({tuple(each.token_ids) for each in ends}) == 1
        line = await refusal(checkpoint("mamba"), kv_memory_bytes=1_000, **settings)
        assert "--kv-cache-memory" in line

    async def test_what_ends_is_forgotten(self) -> None:
        one = engine(checkpoint("bloom"))
        async with running(one) as client:
            kept = _generations(one)
            held = await client.submit(own={"credit_tokens": 2}, max_tokens=50, ignore_eos=True)
            await client.until(lambda: len(client.output(held).token_ids) == 2)
            await client.run(**GREEDY)
            assert len(kept) == 1
            client.engine.abort(held)
            await client.run(**GREEDY)
            await client.until_idle()
            assert not kept


async def test_a_step_that_failed_is_computed_anew() -> None:
    folder = checkpoint("mamba")
    one = engine(folder, max_running=3)
    async with running(one) as client:
        keys = [await client.submit("hello", **GREEDY, ignore_eos=True) for _ in range(2)]
        await client.until(lambda: all(len(client.output(key).token_ids) > 3 for key in keys))
        with _failing(one, [3]):
            bad = await client.submit("a b", **GREEDY)
            failed = await client.end_of(bad)
            outputs = [await client.end_of(key) for key in keys]
        after = await client.run("hello", **GREEDY, ignore_eos=True)
    assert isinstance(failed.error, OutOfMemoryError)
    assert [each.token_ids for each in outputs] == [after.token_ids] * 2


def _generations(one: TransformersEngine) -> dict[Any, Generation]:
    assert one._assembly is not None
    runner = one._assembly.step_loop._runner
    assert isinstance(runner, SerialRunner)
    return runner._generations


@contextmanager
def _failing(one: TransformersEngine, prompt_lengths: Sequence[int]) -> Iterator[None]:
    """Within it, there is no memory for prompts of these lengths."""
    assert one._assembly is not None
    runner = one._assembly.step_loop._runner
    assert isinstance(runner, SerialRunner)
    compute = runner._next_logits

    def next_logits(sequence: Any) -> torch.Tensor:
        if len(sequence.request.prompt_ids) in prompt_lengths:
            raise torch.OutOfMemoryError("no memory")
        return compute(sequence)

    runner._next_logits = next_logits  # type: ignore[method-assign]
    try:
        yield
    finally:
        runner._next_logits = compute  # type: ignore[method-assign]
