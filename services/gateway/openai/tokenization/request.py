"""What is to be tokenized, as workers are asked."""

from __future__ import annotations

from services.gateway.openai.chat.request import read_prompt
from services.gateway.openai.json_fields import missing, plain_list
from services.gateway.openai.sampling import unsigned
from services.mesh.errors import InvalidRequestError
from tokenmesh.openai.v1 import tokenization_pb2
from tokenmesh.worker.v1 import worker_pb2

MAX_CHECKED_PROMPTS = 128


def read_tokenize_request(
    request: tokenization_pb2.TokenizeRequest,
) -> worker_pb2.TokenizeRequest:
    """A text, or a conversation.

    Raises:
        InvalidRequestError: it is neither, or both; or a field is malformed.
    """
    if not request.model:
        raise missing("model")
    has_messages = bool(plain_list(request.messages))
    if has_messages and request.HasField("prompt"):
        raise InvalidRequestError(
            "Only one of 'prompt' and 'messages' can be used at a time.", field="messages"
        )
    if not has_messages and not request.HasField("prompt"):
        raise missing("prompt")
    asked = worker_pb2.TokenizeRequest(model=request.model, with_texts=request.return_token_strs)
    if has_messages:
        asked.chat.CopyFrom(read_prompt(request))
        return asked
    asked.text = request.prompt
    if request.HasField("add_special_tokens"):
        asked.add_special_tokens = request.add_special_tokens
    return asked


def read_detokenize_request(
    request: tokenization_pb2.DetokenizeRequest,
) -> worker_pb2.DetokenizeRequest:
    """Token ids.

    Raises:
        InvalidRequestError: one of them cannot be.
    """
    if not request.model:
        raise missing("model")
    return worker_pb2.DetokenizeRequest(
        model=request.model,
        token_ids=[
            unsigned(f"tokens[{index}]", token_id) for index, token_id in enumerate(request.tokens)
        ],
        skip_special_tokens=False,
    )


def read_checks(
    request: tokenization_pb2.CheckTokensRequest,
) -> list[tokenization_pb2.CheckTokensRequest.Prompt]:
    """The prompts to check.

    Raises:
        InvalidRequestError: there are none or too many, or a completion is less than nothing.
    """
    if not request.prompts:
        raise missing("prompts")
    if len(request.prompts) > MAX_CHECKED_PROMPTS:
        raise InvalidRequestError(
            f"Invalid 'prompts': expected at most {MAX_CHECKED_PROMPTS}, "
            f"but got {len(request.prompts)}.",
            field="prompts",
        )
    for index, prompt in enumerate(request.prompts):
        if not prompt.model:
            raise missing(f"prompts[{index}].model")
        unsigned(f"prompts[{index}].max_tokens", prompt.max_tokens)
    return list(request.prompts)
