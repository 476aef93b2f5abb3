"""A chat completion as OpenAI's clients ask for it, as the gateway's own typed request."""

from __future__ import annotations

from services.gateway.openai.chat.messages import read_messages
from services.gateway.openai.chat.tools import read_tool_choice, read_tools
from services.gateway.openai.json_fields import JsonObject, not_one_of, plain, struct_of
from services.gateway.openai.sampling import read_sampling, unsigned
from services.gateway.openai.stream_options import check_stream_options
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import chat_pb2 as gateway_chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1.generation_pb2 import SamplingParameters
from tokenmesh.openai.v1.chat_pb2 import CreateChatCompletionRequest

_EFFORTS = {
    "none": mesh_chat_pb2.REASONING_EFFORT_NONE,
    "minimal": mesh_chat_pb2.REASONING_EFFORT_MINIMAL,
    "low": mesh_chat_pb2.REASONING_EFFORT_LOW,
    "medium": mesh_chat_pb2.REASONING_EFFORT_MEDIUM,
    "high": mesh_chat_pb2.REASONING_EFFORT_HIGH,
}


def read_chat_request(request: CreateChatCompletionRequest) -> gateway_chat_pb2.ChatRequest:
    """The typed request.

    Raises:
        InvalidRequestError: a field is malformed; `field` is in OpenAI's spelling.
    """
    check_stream_options(request)
    for index, modality in enumerate(request.modalities):
        if modality != "text":
            raise not_one_of(f"modalities[{index}]", ("text",), modality)
    return gateway_chat_pb2.ChatRequest(
        model=request.model,
        prompt=_prompt(request),
        sampling=_sampling(request),
        priority=request.priority,
        user=request.user,
    )


def _prompt(request: CreateChatCompletionRequest) -> mesh_chat_pb2.ChatPrompt:
    prompt = mesh_chat_pb2.ChatPrompt(
        messages=read_messages(request.messages),
        tools=read_tools(request.tools),
        tool_choice=read_tool_choice(request.tool_choice),
    )
    if request.HasField("parallel_tool_calls"):
        prompt.parallel_tool_calls = request.parallel_tool_calls
    if request.HasField("add_generation_prompt"):
        prompt.add_generation_prompt = request.add_generation_prompt
    if request.HasField("continue_final_message"):
        prompt.continue_final_message = request.continue_final_message
    if request.HasField("chat_template"):
        prompt.chat_template = request.chat_template
    arguments = plain(request.chat_template_kwargs)
    if arguments is not None:
        JsonObject("chat_template_kwargs", arguments)
        prompt.chat_template_arguments.CopyFrom(struct_of(arguments))
    if request.HasField("reasoning_effort"):
        effort = request.reasoning_effort
        if effort not in _EFFORTS:
            raise not_one_of("reasoning_effort", list(_EFFORTS), effort)
        prompt.reasoning_effort = _EFFORTS[effort]
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
