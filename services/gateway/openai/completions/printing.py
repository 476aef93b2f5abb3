"""Completions, as server-sent events or as one JSON body."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.answer_body import AnswerBody, CollectedChoice, PromptTokens
from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.envelope import Envelope, finish_reason
from services.gateway.openai.json_text import DONE, encoded, event, quoted
from services.gateway.openai.logprobs import CompletionLogprobs, prompt_logprobs
from services.gateway.openai.stop_reason import stop_reason
from services.gateway.openai.usage import UsageSum
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2

KIND = "text_completion"


class CompletionStream:
    """Prints the events of one answer. Only the text of a token is encoded when it comes."""

    def __init__(
        self,
        envelope: Envelope,
        options: AnswerOptions,
        *,
        choices_per_prompt: int,
        prompt_tokens: PromptTokens | None = None,
    ) -> None:
        self._opening = envelope.opening(KIND)
        self._options = options
        self._choices_per_prompt = choices_per_prompt
        self._usage = UsageSum()
        self._logprobs: dict[int, CompletionLogprobs] = {}
        self._prompts: dict[int, list[TokenLogprob]] = {}
        """Those of echoed prompts, until their text comes."""
        self._prompt_tokens = prompt_tokens or {}
        self._told_prompts: set[int] = set()

    def print(self, prompt_index: int, events: Sequence[worker_pb2.SequenceEvent]) -> bytes:
        """The server-sent events for what came; empty when there is nothing to tell yet."""
        printed: list[bytes] = []
        for each in events:
            kind = each.WhichOneof("event")
            index = prompt_index * self._choices_per_prompt + each.choice_index
            if kind == "started":
                self._usage.start(prompt_index, each.started)
                if each.started.prompt_logprobs:
                    self._prompts[index] = list(each.started.prompt_logprobs)
            elif kind == "chunk":
                chunk = each.chunk
                if self._options.continuous_usage:
                    self._usage.count(chunk)
                if chunk.text or chunk.logprobs or (self._options.token_ids and chunk.token_ids):
                    printed.append(self._text(prompt_index, index, chunk))
            elif kind == "finished":
                self._usage.add(prompt_index, each.finished.usage)
                reason = quoted(finish_reason(each.finished.reason)) + stop_reason(each.finished)
                printed.append(self._event(index, '""', "null", reason))
        return b"".join(printed)

    def end(self) -> bytes:
        """The last events."""
        if not self._options.usage:
            return DONE
        return event(f'{self._opening}[],"usage":{self._usage.json()}}}') + DONE

    def _text(self, prompt_index: int, index: int, chunk: worker_pb2.Chunk) -> bytes:
        reason = "null"
        if self._options.token_ids:
            reason += f',"token_ids":{encoded(list(chunk.token_ids))}'
            if index not in self._told_prompts:
                self._told_prompts.add(index)
                reason += _prompt_token_ids(self._prompt_tokens, prompt_index)
        tokens = [*self._prompts.pop(index, ()), *chunk.logprobs]
        if not tokens or self._options.top_logprobs is None:
            return self._event(index, quoted(chunk.text), "null", reason)
        printer = self._logprobs.setdefault(index, _logprobs_printer(self._options))
        return self._event(index, quoted(chunk.text), printer.print(tokens, chunk.text), reason)

    def _event(self, index: int, text: str, logprobs: str, reason: str) -> bytes:
        more = ""
        if self._options.usage:
            more = f',"usage":{self._usage.so_far() if self._options.continuous_usage else "null"}'
        return event(f"{self._opening}[{_choice(index, text, logprobs, reason)}]{more}}}")


class CompletionBody(AnswerBody):
    """The continuations of one or more prompts."""

    kind = KIND

    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""
        text = "".join(choice.texts)
        logprobs = "null"
        if self._options.top_logprobs is not None:
            tokens = choice.logprobs
            if self._options.echo:
                tokens = [*choice.prompt_logprobs, *tokens]
            logprobs = _logprobs_printer(self._options).print(tokens, text)
        reason = quoted(choice.finish_reason) + choice.stop_reason + self._token_ids(choice)
        if self._options.token_ids:
            reason += _prompt_token_ids(self._prompt_tokens, index // self._choices_per_prompt)
        if self._options.prompt_logprobs:
            reason += f',"prompt_logprobs":{prompt_logprobs(choice.prompt_logprobs)}'
        return _choice(index, quoted(text), logprobs, reason)


def _logprobs_printer(options: AnswerOptions) -> CompletionLogprobs:
    return CompletionLogprobs(options.top_logprobs or 0, as_ids=options.tokens_as_ids)


def _prompt_token_ids(prompt_tokens: PromptTokens, prompt_index: int) -> str:
    return f',"prompt_token_ids":{encoded(list(prompt_tokens.get(prompt_index, ())))}'


def _choice(index: int, text: str, logprobs: str, reason: str) -> str:
    """A choice. `reason` may bring further fields after the finish reason."""
    return f'{{"index":{index},"text":{text},"logprobs":{logprobs},"finish_reason":{reason}}}'
