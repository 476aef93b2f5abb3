"""A chat completion as OpenAI's clients ask for it, as the gateway's own typed request."""

from __future__ import annotations

from services.gateway.openai.answer_options import AnswerOptions, read_answer_options
from services.gateway.openai.chat.messages import read_messages
from services.gateway.openai.chat.template_arguments import read_template_arguments
from services.gateway.openai.chat.tools import read_tool_choice, read_tools
from services.gateway.openai.efforts import EFFORTS
from services.gateway.openai.json_fields import JsonObject, missing, not_one_of, plain
from services.gateway.openai.metadata import read_metadata
from services.gateway.openai.sampling import read_priority, read_sampling, unsigned
from services.gateway.openai.unoffered import refuse_unoffered
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import chat_pb2 as gateway_chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1.generation_pb2 import SamplingParameters
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest
from tokenmesh.openai.v1.tokenization_pb2 import TokenizeRequest

VERBOSITIES = ("low", "medium", "high")
MAX_SAFETY_IDENTIFIER_CHARACTERS = 128


def read_chat_request(request: CreateChatCompletionRequest) -> gateway_chat_pb2.ChatRequest:
    """The typed request.

    Raises:
        InvalidRequestError: a field is malformed; `field` is in OpenAI's spelling.
    """
    if not request.model:
        raise missing("model")
    refuse_unoffered(request)
    _check_what_has_no_effect(request)
    prompt = read_prompt(request)
    if request.HasField("parallel_tool_calls"):
        prompt.parallel_tool_calls = request.parallel_tool_calls
    return gateway_chat_pb2.ChatRequest(
        model=request.model,
        prompt=prompt,
        sampling=_sampling(request),
        priority=read_priority(request),
        user=request.user or request.safety_identifier,
    )


def read_chat_options(request: CreateChatCompletionRequest) -> AnswerOptions:
    """What the client asks to be told.

    Raises:
        InvalidRequestError: an option stands where it cannot have an effect.
    """
    return read_answer_options(
        request,
        top_logprobs=request.top_logprobs if request.logprobs else None,
        service_tier=request.service_tier,
        reasoning=request.include_reasoning or not request.HasField("include_reasoning"),
    )


def _check_what_has_no_effect(request: CreateChatCompletionRequest) -> None:
    for index, modality in enumerate(request.modalities):
        if modality != "text":
            raise not_one_of(f"modalities[{index}]", ("text",), modality)
    read_metadata(request.metadata)
    prediction = plain(request.prediction)
    if prediction is not None:
        JsonObject("prediction", prediction).one_of("type", ("content",))
    if request.HasField("verbosity") and request.verbosity not in VERBOSITIES:
        raise not_one_of("verbosity", VERBOSITIES, request.verbosity)
    if len(request.safety_identifier) > MAX_SAFETY_IDENTIFIER_CHARACTERS:
        raise InvalidRequestError(
            "Invalid 'safety_identifier': expected at most "
            f"{MAX_SAFETY_IDENTIFIER_CHARACTERS} characters, "
            f"but got {len(request.safety_identifier)}.",
            field="safety_identifier",
        )
    if request.add_special_tokens:
        raise InvalidRequestError(
            "Unsupported value: 'add_special_tokens' may only be false here: the chat template "
            "writes special tokens.",
            reason="UNSUPPORTED_PARAMETER",
            field="add_special_tokens",
        )


def read_prompt(
    request: CreateChatCompletionRequest | TokenizeRequest,
) -> mesh_chat_pb2.ChatPrompt:
    """The conversation, and all that goes into the chat template with it.

    Raises:
        InvalidRequestError: as `read_chat_request`.
    """
    asked = read_tool_choice(request.tool_choice)
    prompt = mesh_chat_pb2.ChatPrompt(
        messages=read_messages(request.messages),
        tools=asked.among(read_tools(request.tools)),
        tool_choice=asked.choice,
    )
    if request.HasField("add_generation_prompt"):
        prompt.add_generation_prompt = request.add_generation_prompt
    if request.HasField("continue_final_message"):
        prompt.continue_final_message = request.continue_final_message
    if request.HasField("chat_template"):
        prompt.chat_template = request.chat_template
    arguments = read_template_arguments(request.chat_template_kwargs, request.documents)
    if arguments is not None:
        prompt.chat_template_arguments.CopyFrom(arguments)
    if request.HasField("reasoning_effort"):
        effort = request.reasoning_effort
        if effort not in EFFORTS:
            raise not_one_of("reasoning_effort", list(EFFORTS), effort)
        prompt.reasoning_effort = EFFORTS[effort]
    return prompt


def _sampling(request: CreateChatCompletionRequest) -> SamplingParameters:
    sampling = read_sampling(request)
    for name in ("max_completion_tokens", "max_tokens"):
        if request.HasField(name):
            sampling.max_tokens = unsigned(name, getattr(request, name), at_least=1)
            break
    if request.logprobs:
        sampling.top_logprobs = unsigned("top_logprobs", request.top_logprobs)
    elif request.top_logprobs:
        raise InvalidRequestError(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
            field="top_logprobs",
        )
    return sampling
