"""Which workers are so much slower than their like that requests should go elsewhere. Pure.

Measured by the time between tokens, averaged over a request: the time to the first token tells
more of prompts and queues than of workers. A worker that gets no requests is forgotten after a
while (`routing/latency.py`), and tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

TIMES_SLOWER = 5.0
"""Than the middle one of the others. Lower spares clients sooner; a full batch alone may make a
worker two or three times slower than an idle one."""


def outliers(inter_token_s: Mapping[str, float]) -> set[str]:
    """The slow ones among the workers that serve one model; never all of them.

    Args:
        inter_token_s: seconds between two tokens, by worker; 0 where it is not known.
    """
    known = {worker_id: value for worker_id, value in inter_token_s.items() if value > 0}
    slow: set[str] = set()
    for worker_id, value in known.items():
        others = [other for other_id, other in known.items() if other_id != worker_id]
        if others and value > TIMES_SLOWER * median(others):
            slow.add(worker_id)
    return slow
