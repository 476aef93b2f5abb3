"""The names of fields: the gateway's typed requests against OpenAI's JSON.

Validation speaks of the typed requests. What a client of this API reads must name what it sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# A path into a typed request: "sampling.top_p", "prompt.messages[0].content".
_PATH = re.compile(r"\b(sampling|prompt|chat)\.([a-z_]+)")
_CONSTRAINT = re.compile(r"\bsampling\.constraint((?:\.[a-z_]+)*)")
RESPONSE_FORMAT = "response_format"
# What OpenAI nests one level deeper, or less deep.
_NESTING = (
    (
        re.compile(r"\b(tools\[\d+\]|tool_calls\[\d+\])\.(name|arguments|parameters|strict)\b"),
        r"\1.function.\2",
    ),
    (re.compile(r"\btool_choice\.name\b"), "tool_choice.function.name"),
    (re.compile(r"\btool_choice\.mode\b"), "tool_choice"),
    (re.compile(r"(content\[\d+\])\.image\.url\b"), r"\1.image_url.url"),
)

_BOTH = {
    "choices": "n",
    "include_stop_string": "include_stop_str_in_output",
    "stream_interval_tokens": "stream_interval",
    "chat_template_arguments": "chat_template_kwargs",
}


class Spelling:
    """Says in OpenAI's names what validation says in those of the typed request."""

    def __init__(
        self,
        names: Mapping[str, str],
        *,
        top_level: Mapping[str, str] | None = None,
        constraint: str = RESPONSE_FORMAT,
        nesting: Sequence[tuple[re.Pattern[str], str]] = _NESTING,
    ) -> None:
        """`names` are the fields below `sampling` and `prompt` that are spelled apart, beside the
        usual ones; `top_level` those beside them; `constraint` is what limits the output; `nesting`
        says what stands deeper, or less deep.
        """
        self._names = {**_BOTH, **names}
        self._top_level = top_level or {}
        self._constraint = constraint
        self._nesting = nesting

    def field(self, path: str) -> str:
        """A path in OpenAI's spelling. One that already is comes back as it was."""
        return self._top_level.get(path) or self.words(path)

    def words(self, message: str) -> str:
        """A message with every path in it in OpenAI's spelling."""
        said = _CONSTRAINT.sub(self._say_constraint, message)
        said = _PATH.sub(lambda match: self._names.get(match[2], match[2]), said)
        for pattern, replacement in self._nesting:
            said = pattern.sub(replacement, said)
        return said

    def _say_constraint(self, match: re.Match[str]) -> str:
        below = match[1] or ""
        return self._constraint + below if self._constraint == RESPONSE_FORMAT else self._constraint


def chat_spelling(
    *, uses_max_completion_tokens: bool = False, constraint: str = RESPONSE_FORMAT
) -> Spelling:
    """The spelling of chat completions."""
    names = {"prompt_top_logprobs": "prompt_logprobs"}
    if uses_max_completion_tokens:
        names["max_tokens"] = "max_completion_tokens"
    return Spelling(names, constraint=constraint)


_PLAIN_PROMPT = {"token_ids": "prompt", "text": "prompt"}


def completion_spelling(
    *, uses_prompt_logprobs: bool = False, constraint: str = RESPONSE_FORMAT
) -> Spelling:
    """The spelling of completions."""
    names = {
        "top_logprobs": "logprobs",
        "prompt_top_logprobs": "prompt_logprobs" if uses_prompt_logprobs else "logprobs",
        **_PLAIN_PROMPT,
    }
    top_level = {"token_ids.values": "prompt", **_PLAIN_PROMPT}
    return Spelling(names, top_level=top_level, constraint=constraint)


MODEL_SPELLING = Spelling({})
TOKENIZATION_SPELLING = Spelling({}, top_level={"prompt": "prompt", "token_ids": "tokens"})

_TRUNCATION = (re.compile(r"\btruncate_tokens\b"), "truncate_prompt_tokens")
_TOKEN_IDS = (re.compile(r"(\])\.token_ids\b"), r"\1")


def embedding_spelling(*, is_single: bool) -> Spelling:
    """The spelling of embeddings. `is_single`: the input is one text, and no list of them."""
    inputs = re.compile(r"\binputs\[0\]" if is_single else r"\binputs\b")
    return Spelling({}, nesting=(_TOKEN_IDS, (inputs, "input"), _TRUNCATION))


RERANK_SPELLING = Spelling({}, nesting=((re.compile(r"\bqueries(\[0\])?"), "query"), _TRUNCATION))


def score_spelling(*, first_is_single: bool, second_is_single: bool) -> Spelling:
    """The spelling of scores. A side that `is_single` is one text, and no list of them."""
    first = re.compile(r"\bqueries\[0\]" if first_is_single else r"\bqueries\b")
    second = re.compile(r"\bdocuments\[0\]" if second_is_single else r"\bdocuments\b")
    return Spelling({}, nesting=((first, "text_1"), (second, "text_2"), _TRUNCATION))
