"""A streamed chat completion, as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.answer_body import PromptTokens
from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.chat.deltas import deltas, shows
from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import DONE, encoded, event, quoted
from services.gateway.openai.logprobs import chat_logprobs
from services.gateway.openai.stop_reason import stop_reason
from services.gateway.openai.usage import UsageSum
from tokenmesh.worker.v1 import worker_pb2

KIND = "chat.completion.chunk"
_OPENING_DELTA = '"role":"assistant","content":{content},"refusal":null'
_WITH_TEXT = _OPENING_DELTA.format(content='""')
_WITHOUT_TEXT = _OPENING_DELTA.format(content="null")


class ChatStream:
    """Prints the events of one answer. Only the text of a token is encoded when it comes."""

    def __init__(
        self,
        envelope: Envelope,
        options: AnswerOptions,
        *,
        echo: str = "",
        prompt_tokens: PromptTokens | None = None,
    ) -> None:
        """`echo` is the text that the answer goes on from, where it is to be told."""
        self._opening = envelope.opening(KIND)
        self._options = options
        self._echo = echo
        self._prompt_tokens = prompt_tokens
        self._usage = UsageSum()
        self._opened_choices: set[int] = set()
        self._says_only_text = not (options.token_ids or options.continuous_usage)
        """Whether nothing is told of a token but its text, its log probability aside."""
        self._text_closing = (
            f'}},"logprobs":null,"finish_reason":null}}]{self._usage_field("null")}}}'
        )

    def print(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> bytes:
        """The server-sent events for what came; empty when there is nothing to tell yet."""
        printed: list[bytes] = []
        for each in events:
            kind = each.WhichOneof("event")
            if kind == "started":
                self._usage.start(prompt_index, each.started)
                continue
            index = each.choice_index
            if kind == "chunk":
                chunk = each.chunk
                is_open = index in self._opened_choices
                if (
                    self._says_only_text
                    and is_open
                    and not (chunk.reasoning or chunk.tool_calls or chunk.logprobs)
                ):
                    # Nearly every token comes this way, so it is kept short.
                    if chunk.text:
                        printed.append(self._print_text(index, chunk.text))
                    continue
                if not is_open and (shows(chunk) or self._options.token_ids):
                    is_open = True
                    printed += self._open(index, _opening_delta(chunk))
                if self._options.continuous_usage:
                    self._usage.count(chunk)
                if is_open:
                    printed += self._print_chunk(index, chunk)
            else:
                if index not in self._opened_choices:
                    printed += self._open(index, _WITH_TEXT)
                self._usage.add(prompt_index, each.finished.usage)
                reason = quoted(finish_reason(each.finished.reason)) + stop_reason(each.finished)
                printed.append(self._event(index, "", reason=reason))
        return b"".join(printed)

    def end(self) -> bytes:
        """The last events."""
        if not self._options.usage:
            return DONE
        return event(f'{self._opening}[],"usage":{self._usage.json()}}}') + DONE

    def _open(self, index: int, delta: str) -> list[bytes]:
        """What comes before the output of a choice."""
        more = ""
        if self._prompt_tokens is not None and not self._opened_choices:
            more = f',"prompt_token_ids":{encoded(list(self._prompt_tokens[0]))}'
        self._opened_choices.add(index)
        opened = [self._event(index, _WITH_TEXT if self._echo else delta, more=more)]
        if self._echo:
            opened.append(self._event(index, f'"content":{quoted(self._echo)}'))
        return opened

    def _print_chunk(self, index: int, chunk: worker_pb2.Chunk) -> list[bytes]:
        told: list[str]
        if chunk.reasoning or chunk.tool_calls:
            told = list(deltas(chunk, with_reasoning=self._options.reasoning))
        else:
            told = [f'"content":{quoted(chunk.text)}'] if chunk.text else []
        token_ids, logprobs = "", "null"
        if self._options.token_ids and chunk.token_ids:
            token_ids = f',"token_ids":{encoded(list(chunk.token_ids))}'
        if chunk.logprobs:
            logprobs = chat_logprobs(chunk.logprobs, as_ids=self._options.tokens_as_ids)
        if not told:
            if not (token_ids or chunk.logprobs):
                return []
            # An answer of calls alone has no content, not even an empty one.
            told = ["" if chunk.HasField("output_bytes") else '"content":""']
        # What belongs to the tokens of the chunk is told once.
        first = self._event(index, told[0], logprobs=logprobs, reason=f"null{token_ids}")
        return [first, *(self._event(index, delta) for delta in told[1:])]

    def _event(
        self,
        index: int,
        delta: str,
        *,
        logprobs: str = "null",
        reason: str = "null",
        more: str = "",
    ) -> bytes:
        """A chunk. `reason` and `more` may bring further fields of the choice and of the chunk."""
        so_far = self._usage.so_far() if self._options.continuous_usage else "null"
        return event(
            f'{self._opening}[{{"index":{index},"delta":{{{delta}}},"logprobs":{logprobs},'
            f'"finish_reason":{reason}}}]{more}{self._usage_field(so_far)}}}'
        )

    def _print_text(self, index: int, text: str) -> bytes:
        return event(
            f'{self._opening}[{{"index":{index},"delta":{{"content":{quoted(text)}'
            f"{self._text_closing}"
        )

    def _usage_field(self, usage: str) -> str:
        return f',"usage":{usage}' if self._options.usage else ""


def _opening_delta(chunk: worker_pb2.Chunk) -> str:
    """What opens the message: content, unless the output is parsed and begins with other things."""
    return _WITH_TEXT if chunk.text or not chunk.HasField("output_bytes") else _WITHOUT_TEXT
