"""The default engine: any decoder-only checkpoint of transformers, batched continuously.

A thread of its own repeats one step: schedule, run, sample, publish. Requests join and leave
between steps.
"""

from services.worker.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
