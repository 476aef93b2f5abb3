"""A completion, as server-sent events or as one JSON body.

A choice's place is counted over all prompts: with two prompts and n = 3, the second prompt's
choices are 3, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.answer_body import AnswerBody, CollectedChoice
from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import DONE, event, quoted
from services.gateway.openai.logprobs import CompletionLogprobs
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2

KIND = "text_completion"


class CompletionStream:
    """Prints the events of one answer. Only the text of a token is encoded when it comes."""

    def __init__(self, envelope: Envelope, *, choices_per_prompt: int, include_usage: bool) -> None:
        self._opening = envelope.opening(KIND)
        self._choices_per_prompt = choices_per_prompt
        self._include_usage = include_usage
        self._closing = '],"usage":null}' if include_usage else "]}"
        self._usage = UsageSum()
        self._logprobs: dict[int, CompletionLogprobs] = {}
        self._prompts: dict[int, list[TokenLogprob]] = {}
        """Those of echoed prompts, until their text comes."""

    def print(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> bytes:
        """The server-sent events for what came; empty when there is nothing to tell yet."""
        printed: list[bytes] = []
        for each in events:
            kind = each.WhichOneof("event")
            index = prompt_index * self._choices_per_prompt + each.choice_index
            if kind == "started":
                if each.started.prompt_logprobs:
                    self._prompts[index] = list(each.started.prompt_logprobs)
            elif kind == "chunk":
                if each.chunk.text or each.chunk.logprobs:
                    printed.append(self._text(index, each.chunk))
            elif kind == "finished":
                self._usage.add(prompt_index, each.finished.usage)
                reason = quoted(finish_reason(each.finished.reason))
                printed.append(self._chunk(index, '""', "null", reason))
        return b"".join(printed)

    def end(self) -> bytes:
        """The last events."""
        if not self._include_usage:
            return DONE
        return event(f'{self._opening}[],"usage":{self._usage.json()}}}') + DONE

    def _text(self, index: int, chunk: worker_pb2.Chunk) -> bytes:
        tokens = [*self._prompts.pop(index, ()), *chunk.logprobs]
        if not tokens:
            return self._chunk(index, quoted(chunk.text), "null", "null")
        logprobs = self._logprobs.setdefault(index, CompletionLogprobs()).print(tokens, chunk.text)
        return self._chunk(index, quoted(chunk.text), logprobs, "null")

    def _chunk(self, index: int, text: str, logprobs: str, reason: str) -> bytes:
        return event(f"{self._opening}[{_choice(index, text, logprobs, reason)}{self._closing}")


class CompletionBody(AnswerBody):
    """The continuations of one or more prompts."""

    kind = KIND

    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""
        text = "".join(choice.texts)
        logprobs = "null"
        if self._with_logprobs:
            logprobs = CompletionLogprobs().print(choice.logprobs, text)
        return _choice(index, quoted(text), logprobs, quoted(choice.finish_reason))


def _choice(index: int, text: str, logprobs: str, reason: str) -> str:
    return f'{{"index":{index},"text":{text},"logprobs":{logprobs},"finish_reason":{reason}}}'
