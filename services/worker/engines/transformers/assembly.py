"""Loads a checkpoint and puts the engine's parts together. Importing it imports torch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import torch

from services.worker.chat_formats.capabilities import format_capabilities
from services.worker.engines.base import EngineCapacity, ModelDescription, SequenceEvent
from services.worker.engines.constraints import ConstraintCompiler, fill_each, load_compiler
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.admission import Admission
from services.worker.engines.transformers.checkpoint.device import default_threads
from services.worker.engines.transformers.checkpoint.loading import Checkpoint, load_checkpoint
from services.worker.engines.transformers.checkpoint.proof import LoadedModel
from services.worker.engines.transformers.commands import Commands
from services.worker.engines.transformers.execution import prepare
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.block_hash import root_hash
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.step_loop import StepLoop
from services.worker.engines.transformers.text.chat_template import chat_format_of
from services.worker.engines.transformers.text.prompts import PromptReader
from services.worker.engines.transformers.text.token_texts import TokenTexts
from services.worker.engines.transformers.text.vocabulary import vocabulary_of

log = structlog.get_logger()


@dataclass(frozen=True)
class Assembly:
    """The parts of a loaded engine."""

    description: ModelDescription
    capacity: EngineCapacity
    admission: Admission
    prompts: PromptReader
    texts: TokenTexts
    step_loop: StepLoop
    compiler: ConstraintCompiler | None


def assemble(
    settings: EngineSettings,
    commands: Commands,
    publish: Callable[[Sequence[SequenceEvent]], None],
    may_compute: Callable[[], bool],
) -> Assembly:
    """Loads what the settings name. Must be called in the thread that will run the loop.

    Raises:
        StartError: one line that says what to change.
    """
    began_s = time.monotonic()
    # Counts for the calling thread.
    threads = settings.threads or default_threads()
    torch.set_num_threads(threads)
    checkpoint = load_checkpoint(settings)
    loaded = prepare(checkpoint, settings)
    # Numba, started meanwhile, takes all cores, for torch too.
    torch.set_num_threads(threads)
    plan = loaded.plan
    texts = TokenTexts(checkpoint.tokenizer)
    prompts = PromptReader(
        checkpoint.tokenizer,
        texts,
        vocabulary_size=loaded.vocabulary_size,
        chat_format=chat_format_of(checkpoint.tokenizer, settings.chat_format),
    )
    compiler = _compiler(settings, checkpoint, texts, loaded.vocabulary_size)
    admission = Admission(
        prompts,
        texts,
        sampling_defaults=checkpoint.sampling_defaults,
        end_ids=checkpoint.end_ids,
        vocabulary_size=loaded.vocabulary_size,
        context_length_tokens=plan.context_length_tokens,
        compiler=compiler,
        can_score_prompts=loaded.execution != "serial",
    )
    step_loop = StepLoop(
        commands=commands,
        scheduler=Scheduler(
            plan.slots,
            settings.step_tokens,
            BlockPool(plan.blocks, plan.block_tokens),
            prefix_cache=loaded.execution == "paged",
            cache_root=root_hash(checkpoint.revision, checkpoint.quantization),
        ),
        runner=loaded.runner,
        sampler=Sampler(
            loaded.vocabulary_size, checkpoint.device, compiler.fill if compiler else fill_each
        ),
        texts=texts,
        device=checkpoint.device,
        publish=publish,
        may_compute=may_compute,
        overlaps=checkpoint.device.type != "cpu",
    )
    _spare_the_collector()
    description = _describe(checkpoint, settings, loaded, prompts, compiler)
    log.info(
        "model loaded",
        model=description.name,
        revision=description.revision,
        device=str(checkpoint.device),
        dtype=description.dtype,
        execution=description.execution,
        chat_format=prompts.chat_format.name,
        threads=torch.get_num_threads(),
        seconds=round(time.monotonic() - began_s, 2),
    )
    return Assembly(
        description,
        EngineCapacity(plan.slots, settings.max_waiting, plan.total_tokens),
        admission,
        prompts,
        texts,
        step_loop,
        compiler,
    )


def _compiler(
    settings: EngineSettings, checkpoint: Checkpoint, texts: TokenTexts, vocabulary_size: int
) -> ConstraintCompiler | None:
    if settings.constraint_compiler is None:
        return None
    vocabulary = vocabulary_of(
        checkpoint.tokenizer, texts, size=vocabulary_size, end_ids=checkpoint.end_ids
    )
    if vocabulary is None:
        log.warning("outputs cannot be held to a form: no bytes stand for this tokenizer's tokens")
        return None
    return load_compiler(settings.constraint_compiler, vocabulary)


def _spare_the_collector() -> None:
    """Takes what is loaded by now out of garbage collection.

    The libraries' hundreds of thousands of objects stay to the end. Walking them would stop every
    stream for 200 ms now and then, and the end of the process for a second.
    """
    gc.collect()
    gc.freeze()


def _describe(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    loaded: LoadedModel,
    prompts: PromptReader,
    compiler: ConstraintCompiler | None,
) -> ModelDescription:
    names = settings.model_names or (checkpoint.name,)
    capabilities = frozenset({"COMPLETE", "RESUME"})
    if prompts.can_chat:
        capabilities |= {"CHAT"} | format_capabilities(prompts.chat_format)
    if compiler is not None:
        capabilities |= {"CONSTRAINED_DECODING"}
    return ModelDescription(
        name=names[0],
        aliases=names[1:],
        revision=checkpoint.revision,
        quantization=checkpoint.quantization,
        dtype=str(checkpoint.dtype).removeprefix("torch."),
        context_length_tokens=loaded.plan.context_length_tokens,
        vocabulary_size=loaded.vocabulary_size,
        capabilities=capabilities,
        loaded_at_s=time.time(),
        execution=loaded.execution,
        chat_format=prompts.chat_format,
    )
