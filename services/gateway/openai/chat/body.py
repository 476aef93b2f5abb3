"""A chat completion as one JSON body."""

from __future__ import annotations

from services.gateway.openai.answer_body import AnswerBody, CollectedChoice, PromptTokens
from services.gateway.openai.answer_options import AnswerOptions
from services.gateway.openai.envelope import Envelope
from services.gateway.openai.json_text import array, encoded, quoted
from services.gateway.openai.logprobs import chat_logprobs, prompt_logprobs
from tokenmesh.mesh.v1.chat_pb2 import ToolCall


class ChatBody(AnswerBody):
    """The answer to a conversation."""

    kind = "chat.completion"

    def __init__(
        self,
        envelope: Envelope,
        options: AnswerOptions,
        *,
        echo: str = "",
        prompt_tokens: PromptTokens | None = None,
    ) -> None:
        """`echo` is the text that the answer goes on from, where it is to be told."""
        super().__init__(envelope, options, prompt_tokens=prompt_tokens)
        self._echo = echo

    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""
        logprobs = "null"
        if self._options.top_logprobs is not None:
            logprobs = chat_logprobs(choice.logprobs, as_ids=self._options.tokens_as_ids)
        return (
            f'{{"index":{index},"message":{self._message(choice)},"logprobs":{logprobs},'
            f'"finish_reason":{quoted(choice.finish_reason)}{choice.stop_reason}'
            f"{self._token_ids(choice)}}}"
        )

    def print_more(self) -> str:
        """What vLLM tells of the prompt, which all choices share."""
        more = ""
        if self._options.prompt_logprobs and self._choices:
            first = self._choices[min(self._choices)]
            more += f',"prompt_logprobs":{prompt_logprobs(first.prompt_logprobs)}'
        if self._options.token_ids:
            more += f',"prompt_token_ids":{encoded(list(self._prompt_tokens.get(0, ())))}'
        return more

    def _message(self, choice: CollectedChoice) -> str:
        text = self._echo + "".join(choice.texts)
        reasoning = "".join(choice.reasoning)
        calls = [choice.tool_calls[index] for index in sorted(choice.tool_calls)]
        content = "null" if calls and not text else quoted(text)
        message = f'{{"role":"assistant","content":{content},"refusal":null,"annotations":[]'
        if reasoning and self._options.reasoning:
            message += f',"reasoning_content":{quoted(reasoning)}'
        if calls:
            message += f',"tool_calls":{array(_tool_call(call) for call in calls)}'
        return message + "}"


def _tool_call(call: ToolCall) -> str:
    return (
        f'{{"id":{quoted(call.id)},"type":"function","function":'
        f'{{"name":{quoted(call.name)},"arguments":{quoted(call.arguments)}}}}}'
    )
