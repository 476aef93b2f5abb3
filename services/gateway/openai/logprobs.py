"""Log probabilities in the three shapes that clients know: chat's, completions' and vLLM's."""

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


def _name(token: TokenLogprob, as_id: bool) -> str:
    return quoted(f"token_id:{token.token_id}" if as_id else token.text)


def _token(token: TokenLogprob, as_id: bool) -> str:
    return (
        f'"token":{_name(token, as_id)},"logprob":{_number(token.logprob)},'
        f'"bytes":{encoded(list(token.bytes))}'
    )


def token_logprobs(tokens: Iterable[TokenLogprob], *, as_ids: bool = False) -> list[str]:
    """A JSON object for each token, as chat completions and responses have them."""
    return [
        f'{{{_token(token, as_ids)},"top_logprobs":'
        f"{array(f'{{{_token(top, as_ids)}}}' for top in token.top)}}}"
        for token in tokens
    ]


def chat_logprobs(tokens: Iterable[TokenLogprob], *, as_ids: bool = False) -> str:
    """The `logprobs` of a chat completion's choice or chunk."""
    return f'{{"content":{array(token_logprobs(tokens, as_ids=as_ids))},"refusal":null}}'


def prompt_logprobs(tokens: Iterable[TokenLogprob]) -> str:
    """vLLM's `prompt_logprobs`: for each token its own and the likeliest, by token id. The rank of
    a token that is none of the likeliest is not known.
    """
    return array(_position(token) for token in tokens)


def _position(token: TokenLogprob) -> str:
    if math.isnan(token.logprob):
        return "null"
    ranks = {top.token_id: rank for rank, top in enumerate(token.top, 1)}
    entries = {each.token_id: each for each in (token, *token.top)}
    fields = (
        f'"{token_id}":{{"logprob":{_number(each.logprob)},"rank":{ranks.get(token_id, "null")},'
        f'"decoded_token":{quoted(each.text)}}}'
        for token_id, each in entries.items()
    )
    return f"{{{','.join(fields)}}}"


def _shown_characters(first: str, echo: str) -> int:
    """Length of a prompt's first token in its echo: a beginning-of-sequence token is not in it, nor
    a space that the tokenizer puts before a text.
    """
    plain = first if echo.startswith(first) else first.lstrip()
    return len(plain) if echo.startswith(plain) else 0


class CompletionLogprobs:
    """Prints the `logprobs` of a completion's choice, whose offsets run over all its chunks."""

    def __init__(self, top_logprobs: int, *, as_ids: bool = False) -> None:
        """`top_logprobs` likeliest tokens are told at each position, and the chosen one in any
        case.
        """
        self._top_logprobs = top_logprobs
        self._as_ids = as_ids
        self._offset_characters = 0

    def print(self, tokens: Sequence[TokenLogprob], text: str) -> str:
        """The `logprobs` of the next chunk, or of the whole choice, whose text is given too."""
        offsets = []
        for token in tokens:
            offsets.append(str(self._offset_characters))
            is_first_of_prompt = math.isnan(token.logprob)
            shown = _shown_characters(token.text, text) if is_first_of_prompt else len(token.text)
            self._offset_characters += shown
        return (
            f'{{"text_offset":{array(offsets)},'
            f'"token_logprobs":{array(_number(token.logprob) for token in tokens)},'
            f'"tokens":{array(_name(token, self._as_ids) for token in tokens)},'
            f'"top_logprobs":{array(self._tops(token) for token in tokens)}}}'
        )

    def _tops(self, token: TokenLogprob) -> str:
        if math.isnan(token.logprob):
            return "null"
        numbers: dict[str, str] = {}
        for each in (*token.top[: self._top_logprobs], token):
            # Half characters look alike: the likeliest of them is told.
            numbers.setdefault(_name(each, self._as_ids), _number(each.logprob))
        return "{" + ",".join(f"{name}:{number}" for name, number in numbers.items()) + "}"
