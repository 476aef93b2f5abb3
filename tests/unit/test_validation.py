"""What a request must look like: every range, with the field's path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.requests import requirements, sampling_ranges
from services.gateway.requests.validation import MAX_REQUEST_BYTES, chat_start, completion_start
from services.mesh.errors import InvalidRequestError
from tests.fakes.fleet import model
from tokenmesh.gateway.v1 import chat_pb2, completion_pb2
from tokenmesh.mesh.v1 import generation_pb2

USER = 'prompt { messages { role: ROLE_USER content { text: "Hi" } } }'


def chat(text: str = USER, *, model: str = 'model: "m"') -> chat_pb2.ChatRequest:
    """A request in protobuf's text format."""
    return text_format.Merge(f"{model} {text}", chat_pb2.ChatRequest())


def complete(text: str) -> completion_pb2.CompleteRequest:
    return text_format.Merge(text, completion_pb2.CompleteRequest())


def field_of(request: chat_pb2.ChatRequest | completion_pb2.CompleteRequest) -> str | None:
    """The field that a request is refused for; None when it is taken."""
    try:
        if isinstance(request, chat_pb2.ChatRequest):
            chat_start(request, "id")
        else:
            completion_start(request, "id")
    except InvalidRequestError as error:
        refusal = error
    else:
        return None
    assert refusal.field is not None
    assert refusal.field in refusal.message
    return refusal.field


SAMPLING_EDGES: list[tuple[str, list[Any], list[Any]]] = [
    ("temperature", [0, 1e-9, 2], [-0.1, 2.1, math.nan, math.inf]),
    ("top_p", [1e-9, 1], [0, -1, 1.01, math.nan]),
    ("top_k", [-1, 0, 5], [-2]),
    ("min_p", [0, 1], [-0.1, 1.1, math.nan]),
    ("repetition_penalty", [1e-9, 5], [0, -1, math.inf, math.nan]),
    ("presence_penalty", [-2, 0, 2], [-2.1, 2.1, math.nan]),
    ("frequency_penalty", [-2, 0, 2], [-2.1, 2.1, math.nan]),
    ("seed", [0, 2**64 - 1], []),
    ("max_tokens", [1, 2**31], [0]),
    ("min_tokens", [0, 7], []),
    ("choices", [1, 128], [0, 129]),
    ("top_logprobs", [0, 20], [21]),
    ("prompt_top_logprobs", [0, 20], [21]),
    ("stream_interval_tokens", [1, 64], [0]),
    ("ignore_eos", [True, False], []),
    ("stop", [[], ["a"], ["a"] * 64], [["a"] * 65]),
    ("stop_token_ids", [[], [0]], [[1] * 1025]),
    ("bad_words", [[], ["a"]], [["a"] * 1025]),
]


@pytest.mark.parametrize(
    ("name", "value", "is_valid"),
    [
        (name, value, is_valid)
        for name, valid, invalid in SAMPLING_EDGES
        for is_valid, values in ((True, valid), (False, invalid))
        for value in values
    ],
)
def test_sampling_ranges(name: str, value: Any, is_valid: bool) -> None:
    request = chat()
    request.sampling.MergeFrom(generation_pb2.SamplingParameters(**{name: value}))
    assert field_of(request) == (None if is_valid else f"sampling.{name}")
    completion = complete('model: "m" text: "a"')
    completion.sampling.CopyFrom(request.sampling)
    assert field_of(completion) == (None if is_valid else f"sampling.{name}")


def test_every_number_of_the_contract_has_a_range_or_needs_none() -> None:
    numbers = {
        field.name
        for field in generation_pb2.SamplingParameters.DESCRIPTOR.fields
        if not field.is_repeated
        and field.cpp_type not in (field.CPPTYPE_BOOL, field.CPPTYPE_MESSAGE)
    }
    assert numbers - set(sampling_ranges.RANGES) == {"seed", "min_tokens"}


@given(st.floats())
def test_a_range_takes_what_it_names_and_nothing_else(value: float) -> None:
    for allowed in sampling_ranges.RANGES.values():
        inside = allowed.low < value <= allowed.high or (
            value == allowed.low and not allowed.excludes_low
        )
        assert allowed.holds(value) == (inside and math.isfinite(value))


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ("min_tokens: 3 max_tokens: 3", None),
        ("min_tokens: 4 max_tokens: 3", "sampling.min_tokens"),
        ("choices: 2 best_of: 2", None),
        ("choices: 3 best_of: 2", "sampling.best_of"),
        ('stop: "a" stop: ""', "sampling.stop[1]"),
        ('bad_words: ""', "sampling.bad_words[0]"),
        ("logit_bias { key: 7 value: -100 }", None),
        ("logit_bias { key: 7 value: 101 }", "sampling.logit_bias[7]"),
        ("logit_bias { key: 7 value: nan }", "sampling.logit_bias[7]"),
        ("constraint { }", "sampling.constraint"),
        ("constraint { json_object { } }", None),
        ("constraint { json_schema { } }", "sampling.constraint.json_schema.schema"),
        ('constraint { json_schema { schema: "{}" } }', None),
        ('constraint { regex: "" }', "sampling.constraint.regex"),
        ('constraint { grammar: "" }', "sampling.constraint.grammar"),
        ("constraint { choices { } }", "sampling.constraint.choices.values"),
    ],
)
def test_sampling_as_a_whole(sampling: str, field: str | None) -> None:
    assert field_of(chat(f"{USER} sampling {{ {sampling} }}")) == field


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ("", "prompt.messages"),
        ('messages { content { text: "a" } }', "prompt.messages[0].role"),
        ('messages { role: 99 content { text: "a" } }', "prompt.messages[0].role"),
        ("messages { role: ROLE_USER }", "prompt.messages[0].content"),
        ("messages { role: ROLE_USER content { } }", "prompt.messages[0].content[0]"),
        ('messages { role: ROLE_USER content { text: "" } }', None),
        ('messages { role: ROLE_DEVELOPER content { text: "a" } }', None),
        ("messages { role: ROLE_ASSISTANT }", "prompt.messages[0].content"),
        ('messages { role: ROLE_ASSISTANT tool_calls { id: "1" name: "f" } }', None),
        (
            'messages { role: ROLE_ASSISTANT tool_calls { id: "1" } }',
            "prompt.messages[0].tool_calls[0].name",
        ),
        (
            'messages { role: ROLE_USER content { text: "a" } tool_calls { name: "f" } }',
            "prompt.messages[0].tool_calls",
        ),
        (
            'messages { role: ROLE_TOOL content { text: "a" } }',
            "prompt.messages[0].tool_call_id",
        ),
        ('messages { role: ROLE_TOOL tool_call_id: "1" content { text: "a" } }', None),
        (
            'messages { role: ROLE_USER tool_call_id: "1" content { text: "a" } }',
            "prompt.messages[0].tool_call_id",
        ),
        (
            'messages { role: ROLE_USER content { refusal: "a" } }',
            "prompt.messages[0].content[0].refusal",
        ),
        (
            "messages { role: ROLE_USER content { image { } } }",
            "prompt.messages[0].content[0].image",
        ),
        (
            'messages { role: ROLE_USER content { image { data: "a" } } }',
            "prompt.messages[0].content[0].image.media_type",
        ),
    ],
)
def test_messages(messages: str, field: str | None) -> None:
    assert field_of(chat(f"prompt {{ {messages} }}")) == field


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        ('tools { name: "f" }', None),
        ('tools { name: "" }', "prompt.tools[0].name"),
        ('tools { name: "a b" }', "prompt.tools[0].name"),
        (f'tools {{ name: "{"f" * 65}" }}', "prompt.tools[0].name"),
        ('tools { name: "f" } tools { name: "f" }', "prompt.tools[1].name"),
        ('tools { name: "f" } tool_choice { name: "f" }', None),
        ('tools { name: "f" } tool_choice { name: "g" }', "prompt.tool_choice.name"),
        ("tool_choice { mode: TOOL_CHOICE_MODE_NONE }", None),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", "prompt.tool_choice.mode"),
        ("tool_choice { mode: 77 }", "prompt.tool_choice.mode"),
        ("continue_final_message: true", None),
        ("continue_final_message: true add_generation_prompt: false", None),
        (
            "continue_final_message: true add_generation_prompt: true",
            "prompt.continue_final_message",
        ),
        ("reasoning_effort: REASONING_EFFORT_HIGH", None),
        ("reasoning_effort: 55", "prompt.reasoning_effort"),
        (f'chat_template: "{"x" * 100_001}"', "prompt.chat_template"),
    ],
)
def test_chat_prompts(prompt: str, field: str | None) -> None:
    assert field_of(chat(f"{USER} prompt {{ {prompt} }}")) == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (chat(model=""), "model"),
        (chat(model=f'model: "{"m" * 513}"'), "model"),
        (chat(f'{USER} user: "{"u" * 513}"'), "user"),
        (complete(f'model: "m" text: "{"x" * (MAX_REQUEST_BYTES + 1)}"'), "prompt"),
        (complete('text: "a"'), "model"),
        (complete('model: "m"'), "prompt"),
        (complete('model: "m" text: ""'), None),
        (complete('model: "m" token_ids { }'), "token_ids.values"),
        (complete('model: "m" token_ids { values: 1 }'), None),
    ],
)
def test_the_rest(
    request_: chat_pb2.ChatRequest | completion_pb2.CompleteRequest, field: str | None
) -> None:
    assert field_of(request_) == field


def test_a_start_holds_all_that_was_asked() -> None:
    request = chat(f"{USER} priority: 3 sampling {{ temperature: 0 top_k: 0 }}")
    start = chat_start(request, "req-1")
    assert (start.request_id, start.model, start.priority) == ("req-1", "m", 3)
    assert start.chat == request.prompt
    assert start.sampling == request.sampling
    assert start.sampling.HasField("temperature")
    assert not start.sampling.HasField("seed")


TEXT_ONLY = model(capabilities=frozenset({"COMPLETE"}))
CHATS = model(capabilities=frozenset({"CHAT"}))
TOOL = f'{USER} prompt {{ tools {{ name: "f" }} }}'
REQUIRED = f"{TOOL} prompt {{ tool_choice {{ mode: TOOL_CHOICE_MODE_REQUIRED }} }}"
CALLS = model(capabilities=frozenset({"CHAT", "TOOLS"}))
FORCED = model(capabilities=frozenset({"CHAT", "TOOLS", "CONSTRAINED_DECODING"}))
IMAGE = 'messages { role: ROLE_USER content { text: "a" } content { image { url: "u" } } }'


@pytest.mark.parametrize(
    ("request_", "served", "field"),
    [
        (chat(), CHATS, None),
        (chat(), TEXT_ONLY, "model"),
        (complete('model: "m" text: "a"'), TEXT_ONLY, None),
        (complete('model: "m" text: "a"'), CHATS, "model"),
        (chat(TOOL), CHATS, "prompt.tools"),
        (chat(TOOL), CALLS, None),
        (chat(f"{TOOL} prompt {{ tool_choice {{ mode: TOOL_CHOICE_MODE_NONE }} }}"), CHATS, None),
        (chat(REQUIRED), CALLS, "prompt.tool_choice"),
        (chat(REQUIRED), FORCED, None),
        (chat(f'{TOOL} prompt {{ tool_choice {{ name: "f" }} }}'), CALLS, "prompt.tool_choice"),
        (
            chat(f'{USER} prompt {{ tools {{ name: "f" strict: true }} }}'),
            CALLS,
            "prompt.tools[0].strict",
        ),
        (chat(f"prompt {{ {IMAGE} }}"), CHATS, "prompt.messages[0].content[1]"),
        (
            chat(f"prompt {{ {IMAGE} }}"),
            model(capabilities=frozenset({"CHAT"}), input_modalities=frozenset({"TEXT", "IMAGE"})),
            None,
        ),
        (
            chat(f"{USER} sampling {{ constraint {{ json_object {{ }} }} }}"),
            CHATS,
            "sampling.constraint",
        ),
        (
            chat(f"{USER} sampling {{ constraint {{ json_object {{ }} }} }}"),
            model(capabilities=frozenset({"CHAT", "CONSTRAINED_DECODING"})),
            None,
        ),
    ],
)
def test_what_a_model_must_be_able_to_do(request_: Any, served: Any, field: str | None) -> None:
    start = chat_start if isinstance(request_, chat_pb2.ChatRequest) else completion_start
    refusal = None
    try:
        requirements.check(start(request_, "id"), served)
    except InvalidRequestError as error:
        refusal = (error.reason, error.field)
    assert refusal == (None if field is None else ("CAPABILITY_MISSING", field))
