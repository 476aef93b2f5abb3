"""Log probabilities in the two shapes that OpenAI has for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from services.gateway.openai.json_text import array, encoded, quoted
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob

# What stands for a probability of zero, whose logarithm JSON cannot print. OpenAI uses the same.
IMPOSSIBLE_LOGPROB = -9999.0


def _number(logprob: float) -> str:
    """A prompt's first token, which nothing stands before, has none: NaN becomes null."""
    if math.isnan(logprob):
        return "null"
    return repr(logprob if math.isfinite(logprob) else IMPOSSIBLE_LOGPROB)


def _token(token: TokenLogprob) -> str:
    return (
        f'"token":{quoted(token.text)},"logprob":{_number(token.logprob)},'
        f'"bytes":{encoded(list(token.bytes))}'
    )


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> str:
    """The `logprobs` of a chat completion's choice or chunk."""
    content = (
        f'{{{_token(token)},"top_logprobs":{array(f"{{{_token(top)}}}" for top in token.top)}}}'
        for token in tokens
    )
    return f'{{"content":{array(content)},"refusal":null}}'


def _tops(token: TokenLogprob) -> str:
    if math.isnan(token.logprob):
        return "null"
    return "{" + ",".join(f"{quoted(top.text)}:{_number(top.logprob)}" for top in token.top) + "}"


def _shown_characters(first: str, echo: str) -> int:
    """Length of a prompt's first token in its echo: a beginning-of-sequence token is not in it, nor
    a space that the tokenizer puts before a text.
    """
    plain = first if echo.startswith(first) else first.lstrip()
    return len(plain) if echo.startswith(plain) else 0


class CompletionLogprobs:
    """Prints the `logprobs` of a completion's choice, whose offsets run over all its chunks."""

    def __init__(self) -> None:
        self._offset_characters = 0

    def print(self, tokens: Sequence[TokenLogprob], text: str) -> str:
        """The `logprobs` of the next chunk, or of the whole choice, whose text is given too."""
        offsets = []
        for token in tokens:
            offsets.append(str(self._offset_characters))
            is_first_of_prompt = math.isnan(token.logprob)
            shown = _shown_characters(token.text, text) if is_first_of_prompt else len(token.text)
            self._offset_characters += shown
        tops = (_tops(token) for token in tokens)
        return (
            f'{{"text_offset":{array(offsets)},'
            f'"token_logprobs":{array(_number(token.logprob) for token in tokens)},'
            f'"tokens":{array(quoted(token.text) for token in tokens)},'
            f'"top_logprobs":{array(tops)}}}'
        )
