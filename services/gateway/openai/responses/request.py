"""A response as OpenAI's clients ask for it, as the gateway's own typed request."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.openai.efforts import EFFORTS
from services.gateway.openai.json_fields import JsonObject, missing, not_one_of, plain, plain_list
from services.gateway.openai.metadata import read_metadata
from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.responses.items import Item, PlacedItem, read_input
from services.gateway.openai.responses.text_format import read_text
from services.gateway.openai.responses.tools import read_tool_choice, read_tools
from services.gateway.openai.sampling import read_priority, unsigned
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import chat_pb2 as gateway_chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1.generation_pb2 import Constraint, SamplingParameters
from tokenmesh.openai.v1.response_pb2 import CreateResponseRequest

LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = (
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
"""What may be asked for. All but log probabilities is there anyway, or belongs to items that
nothing here makes."""

_SUMMARIES = ("auto", "concise", "detailed")
_TRUNCATIONS = ("disabled", "auto")
_SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_SEED_MODULUS = 2**64


@dataclass(frozen=True)
class ResponseRequest:
    """What a client asked for, read and checked as far as one can without its conversation."""

    items: list[PlacedItem]
    """The input, with references that are not resolved yet."""
    chat: gateway_chat_pb2.ChatRequest
    """All of the typed request but its messages."""
    told: Item
    """The fields of the request that the response tells again."""
    instructions: str | None
    previous_response_id: str | None
    stream: bool
    background: bool
    store: bool
    insists_on_store: bool
    """Whether the client has said that it wants the response stored."""
    truncates: bool
    """Whether its oldest turns are left out where all of them do not fit."""
    shows_summary: bool
    """Whether reasoning is shown as its own summary."""

    def chat_request(self, conversation: Conversation) -> gateway_chat_pb2.ChatRequest:
        """The typed request."""
        request = gateway_chat_pb2.ChatRequest()
        request.CopyFrom(self.chat)
        request.prompt.messages.extend(conversation.messages)
        return request


def read_response_request(request: CreateResponseRequest) -> ResponseRequest:
    """The request.

    Raises:
        InvalidRequestError: a field is malformed; `field` is in OpenAI's spelling.
    """
    if not request.model:
        raise missing("model")
    _refuse_what_is_not_offered(request)
    items = read_input(plain(request.input))
    store = request.store if request.HasField("store") else True
    if request.background and not store:
        raise InvalidRequestError(
            "Background mode requires 'store' to be true: its response is read from the store.",
            field="store",
        )
    tools, told_tools = read_tools(plain_list(request.tools))
    choice = plain(request.tool_choice)
    tool_choice = read_tool_choice(choice, tools)
    constraint, told_text = read_text(plain(request.text))
    effort, summary = _reasoning(plain(request.reasoning))
    truncation = _one_of(request, "truncation", _TRUNCATIONS) or "disabled"
    prompt = mesh_chat_pb2.ChatPrompt(tools=tools, tool_choice=tool_choice)
    if request.HasField("parallel_tool_calls"):
        prompt.parallel_tool_calls = request.parallel_tool_calls
    if effort is not None:
        prompt.reasoning_effort = EFFORTS[effort]
    told = {
        "instructions": _optional(request, "instructions"),
        "max_output_tokens": _optional(request, "max_output_tokens"),
        "max_tool_calls": _optional(request, "max_tool_calls"),
        "parallel_tool_calls": _optional(request, "parallel_tool_calls", True),
        "previous_response_id": _optional(request, "previous_response_id"),
        "prompt_cache_key": _optional(request, "prompt_cache_key"),
        "reasoning": {"effort": effort, "summary": summary},
        "safety_identifier": _optional(request, "safety_identifier"),
        "service_tier": "default",
        "temperature": _optional(request, "temperature"),
        "text": told_text,
        "tool_choice": "auto" if choice is None else choice,
        "tools": told_tools,
        "top_logprobs": request.top_logprobs,
        "top_p": _optional(request, "top_p"),
        "presence_penalty": _optional(request, "presence_penalty"),
        "frequency_penalty": _optional(request, "frequency_penalty"),
        "truncation": truncation,
        "user": _optional(request, "user"),
        "metadata": read_metadata(request.metadata),
        "conversation": None,
        "prompt": None,
    }
    return ResponseRequest(
        items=items,
        chat=gateway_chat_pb2.ChatRequest(
            model=request.model,
            prompt=prompt,
            sampling=_sampling(request, constraint),
            priority=read_priority(request),
            user=request.user or request.safety_identifier,
        ),
        told=told,
        instructions=request.instructions or None,
        previous_response_id=request.previous_response_id or None,
        stream=request.stream,
        background=request.background,
        store=store,
        insists_on_store=request.HasField("store") and store,
        truncates=truncation == "auto",
        shows_summary=summary is not None,
    )


def _optional(request: CreateResponseRequest, name: str, default: object = None) -> object:
    """The field's value where it is set."""
    return getattr(request, name) if request.HasField(name) else default  # type: ignore[arg-type]


def _refuse_what_is_not_offered(request: CreateResponseRequest) -> None:
    if plain(request.conversation) is not None:
        raise InvalidRequestError(
            "Unsupported parameter: 'conversation'. Conversations are not kept here: continue a "
            "response by 'previous_response_id'.",
            field="conversation",
        )
    if plain(request.prompt) is not None:
        raise InvalidRequestError(
            "Unsupported parameter: 'prompt'. Prompt templates are not kept here: send "
            "'instructions' and 'input'.",
            field="prompt",
        )
    if plain(request.moderation) is not None:
        raise InvalidRequestError(
            "Unsupported parameter: 'moderation'. Nothing here moderates.", field="moderation"
        )
    if plain(request.stream_options) is not None and not request.stream:
        raise InvalidRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            field="stream_options",
        )
    if plain(request.stream_options) is not None:
        # Obfuscation hides nothing from whoever may read the text itself: none is added.
        JsonObject("stream_options", plain(request.stream_options)).boolean("include_obfuscation")
    if request.HasField("max_tool_calls"):
        unsigned("max_tool_calls", request.max_tool_calls, at_least=1)
    _one_of(request, "service_tier", _SERVICE_TIERS)
    for index, name in enumerate(request.include):
        if name not in _INCLUDABLE:
            raise not_one_of(f"include[{index}]", _INCLUDABLE, name)


def _one_of(request: CreateResponseRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    value = _optional(request, name)
    if isinstance(value, str) and value not in allowed:
        raise not_one_of(name, allowed, value)
    return None if value is None else str(value)


def _sampling(request: CreateResponseRequest, constraint: Constraint | None) -> SamplingParameters:
    sampling = SamplingParameters(constraint=constraint)
    for name in _SAME:
        if request.HasField(name):  # type: ignore[arg-type]
            setattr(sampling, name, getattr(request, name))
    if request.HasField("seed"):
        sampling.seed = request.seed % _SEED_MODULUS
    if request.HasField("min_tokens"):
        sampling.min_tokens = unsigned("min_tokens", request.min_tokens)
    if request.HasField("max_output_tokens"):
        sampling.max_tokens = unsigned("max_output_tokens", request.max_output_tokens, at_least=1)
    top_logprobs = unsigned("top_logprobs", request.top_logprobs)
    if LOGPROBS in request.include:
        sampling.top_logprobs = top_logprobs
    return sampling


def _reasoning(value: object) -> tuple[str | None, str | None]:
    """Effort and summary."""
    reasoning = JsonObject("reasoning", {} if value is None else value)
    summary = reasoning.one_of("summary", _SUMMARIES)
    return (
        reasoning.one_of("effort", list(EFFORTS)),
        summary or reasoning.one_of("generate_summary", _SUMMARIES),
    )
