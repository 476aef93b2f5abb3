"""The names of fields: the gateway's typed requests against OpenAI's JSON.

Validation speaks of the typed requests. What a client of this API reads must name what it sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A path into a typed request: "sampling.top_p", "prompt.messages[0].content".
_PATH = re.compile(r"\b(sampling|prompt)\.([a-z_]+)")
# Fields of a plain completion that stand beside `sampling`.
_PROMPT = re.compile(r"\b(token_ids\.values|token_ids|text)\b")
_TOOL_NAME = re.compile(r"(tools\[\d+\])\.(name|description|parameters|strict)")

_BOTH = {
    "choices": "n",
    "include_stop_string": "include_stop_str_in_output",
    "constraint": "response_format",
    "chat_template_arguments": "chat_template_kwargs",
}


class Spelling:
    """Says in OpenAI's names what validation says in those of the typed request."""

    def __init__(self, names: Mapping[str, str], *, prompt_is_plain: bool = False) -> None:
        """`names` are the fields of this request that are spelled apart, beside the usual ones."""
        self._names = {**_BOTH, **names}
        self._prompt_is_plain = prompt_is_plain

    def field(self, path: str) -> str:
        """A path in OpenAI's spelling. One that already is comes back as it was."""
        if self._prompt_is_plain and _PROMPT.fullmatch(path):
            return "prompt"
        return self.words(path)

    def words(self, message: str) -> str:
        """A message with every path in it in OpenAI's spelling."""
        said = _PATH.sub(lambda match: self._names.get(match[2], match[2]), message)
        return _TOOL_NAME.sub(r"\1.function.\2", said)


def chat_spelling(*, uses_max_completion_tokens: bool) -> Spelling:
    """The spelling of chat completions."""
    return Spelling({"max_tokens": "max_completion_tokens"} if uses_max_completion_tokens else {})


COMPLETION_SPELLING = Spelling({"top_logprobs": "logprobs"}, prompt_is_plain=True)
MODEL_SPELLING = Spelling({})
