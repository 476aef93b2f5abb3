"""A chat completion as one JSON body."""

from __future__ import annotations

from services.gateway.openai.answer_body import AnswerBody, CollectedChoice
from services.gateway.openai.json_text import array, quoted
from services.gateway.openai.logprobs import chat_logprobs
from tokenmesh.mesh.v1.chat_pb2 import ToolCall


class ChatBody(AnswerBody):
    """The answer to a conversation."""

    kind = "chat.completion"

    def print_choice(self, index: int, choice: CollectedChoice) -> str:
        """One of the choices, as a JSON object."""
        logprobs = chat_logprobs(choice.logprobs) if self._with_logprobs else "null"
        return (
            f'{{"index":{index},"message":{_message(choice)},"logprobs":{logprobs},'
            f'"finish_reason":{quoted(choice.finish_reason)}}}'
        )


def _message(choice: CollectedChoice) -> str:
    text = "".join(choice.texts)
    reasoning = "".join(choice.reasoning)
    calls = [choice.tool_calls[index] for index in sorted(choice.tool_calls)]
    content = "null" if calls and not text else quoted(text)
    message = f'{{"role":"assistant","content":{content},"refusal":null'
    if reasoning:
        message += f',"reasoning_content":{quoted(reasoning)}'
    if calls:
        message += f',"tool_calls":{array(_tool_call(call) for call in calls)}'
    return message + "}"


def _tool_call(call: ToolCall) -> str:
    return (
        f'{{"id":{quoted(call.id)},"type":"function","function":'
        f'{{"name":{quoted(call.name)},"arguments":{quoted(call.arguments)}}}}}'
    )
