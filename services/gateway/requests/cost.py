"""What a request is expected to take, so that callers can share by that and not by count."""

from __future__ import annotations

from tokenmesh.worker.v1 import worker_pb2

BYTES_PER_TOKEN = 4
MAX_PROMPT_TOKENS = 32_768
"""Pictures and sound are many bytes, and few tokens."""

ANSWER_TOKENS = 256
"""Of an answer whose end is not set; most end by themselves."""

MAX_ANSWER_TOKENS = 2048
"""Many clients ask for far more than they ever get."""


def expected_tokens(start: worker_pb2.Start) -> float:
    """Tokens of the prompt and of all answers to it, as far as one can tell without a tokenizer.
    1 or more.
    """
    prompt = 1 + start.ByteSize() // BYTES_PER_TOKEN
    sampling = start.sampling
    answer = sampling.max_tokens if sampling.HasField("max_tokens") else ANSWER_TOKENS
    choices = max(1, sampling.choices)
    return min(prompt, MAX_PROMPT_TOKENS) + choices * min(answer, MAX_ANSWER_TOKENS)
