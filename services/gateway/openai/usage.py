"""What an answer cost, summed over its choices and prompts."""

from __future__ import annotations

from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2


class UsageSum:
    """Sums the usage of choices. The tokens of a prompt count once for all its choices."""

    def __init__(self) -> None:
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}
        self._running_tokens = 0
        self._running_reasoning_tokens = 0

    def start(self, prompt_index: int, started: worker_pb2.Started) -> None:
        """Notes a prompt, for `so_far`."""
        self._note_prompt(prompt_index, started.prompt_tokens, started.cached_tokens)

    def count(self, chunk: worker_pb2.Chunk) -> None:
        """Counts new output, for `so_far`."""
        self._running_tokens += len(chunk.token_ids)
        self._running_reasoning_tokens += chunk.reasoning_tokens

    def add(self, prompt_index: int, usage: generation_pb2.Usage) -> None:
        """Adds what one choice of a prompt cost in the end."""
        self._note_prompt(prompt_index, usage.prompt_tokens, usage.cached_tokens)
        self._completion_tokens += usage.completion_tokens
        self._reasoning_tokens += usage.reasoning_tokens

    def json(self) -> str:
        """OpenAI's usage object, once every choice has ended."""
        return self._json(self._completion_tokens, self._reasoning_tokens)

    def so_far(self) -> str:
        """OpenAI's usage object, of what was started and counted."""
        return self._json(self._running_tokens, self._running_reasoning_tokens)

    def _note_prompt(self, prompt_index: int, prompt_tokens: int, cached_tokens: int) -> None:
        self._prompt_tokens[prompt_index] = prompt_tokens
        self._cached_tokens[prompt_index] = max(
            cached_tokens, self._cached_tokens.get(prompt_index, 0)
        )

    def _json(self, completion_tokens: int, reasoning_tokens: int) -> str:
        prompt_tokens = sum(self._prompt_tokens.values())
        return (
            f'{{"prompt_tokens":{prompt_tokens},"completion_tokens":{completion_tokens},'
            f'"total_tokens":{prompt_tokens + completion_tokens},'
            f'"prompt_tokens_details":{{"cached_tokens":{sum(self._cached_tokens.values())},'
            '"audio_tokens":0},'
            f'"completion_tokens_details":{{"reasoning_tokens":{reasoning_tokens},'
            '"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
        )
