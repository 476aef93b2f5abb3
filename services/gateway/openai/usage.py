"""What an answer cost, summed over its choices and prompts."""

from __future__ import annotations

from tokenmesh.mesh.v1 import generation_pb2


class UsageSum:
    """Sums the usage of choices. The tokens of a prompt count once for all its choices."""

    def __init__(self) -> None:
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}

    def add(self, prompt_index: int, usage: generation_pb2.Usage) -> None:
        """Adds what one choice of a prompt cost."""
        self._prompt_tokens[prompt_index] = usage.prompt_tokens
        self._cached_tokens[prompt_index] = max(
            usage.cached_tokens, self._cached_tokens.get(prompt_index, 0)
        )
        self._completion_tokens += usage.completion_tokens
        self._reasoning_tokens += usage.reasoning_tokens

    def json(self) -> str:
        """OpenAI's usage object."""
        prompt_tokens = sum(self._prompt_tokens.values())
        return (
            f'{{"prompt_tokens":{prompt_tokens},"completion_tokens":{self._completion_tokens},'
            f'"total_tokens":{prompt_tokens + self._completion_tokens},'
            f'"prompt_tokens_details":{{"cached_tokens":{sum(self._cached_tokens.values())}}},'
            f'"completion_tokens_details":{{"reasoning_tokens":{self._reasoning_tokens}}}}}'
        )
