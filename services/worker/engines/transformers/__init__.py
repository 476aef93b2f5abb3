"""The default engine: any decoder-only checkpoint of transformers, batched continuously.

A thread of its own repeats one step: schedule, run, sample, publish. Requests join and leave
between steps.

A request's way: `engine` takes it, `prompts` and `admission` make sequences of it, `scheduler`
gives them slots and steps, `model_runner` computes them with `attention` over `kv_cache`, `sampler`
chooses tokens, `output` makes text of them and sees the end, `events` and `outbox` carry it out.
"""

from services.worker.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
