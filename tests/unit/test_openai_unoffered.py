"""What nothing here does is refused by name, unless it asks for nothing."""

from __future__ import annotations

import pytest

from tests.openai_requests import chat, chat_error, complete_error
from tokenmesh.openai.v1.completion_pb2 import CreateCompletionRequest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "ash", "format": "wav"}),
        ("web_search_options", {}),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("use_beam_search", True),
        ("length_penalty", 0.5),
        ("spaces_between_special_tokens", False),
        ("truncate_prompt_tokens", 5),
        ("allowed_token_ids", [1]),
        ("logprob_token_ids", [1]),
        ("logits_processors", ["x"]),
        ("thinking_token_budget", 0),
        ("repetition_detection", {}),
        ("cache_salt", "x"),
        ("kv_transfer_params", {}),
        ("vllm_xargs", {"a": 1}),
        ("guided_whitespace_pattern", " "),
    ],
)
def test_what_nothing_here_does_is_refused_by_name(field: str, value: object) -> None:
    error = chat_error(**{field: value})
    assert (error.field, error.reason) == (field, "UNSUPPORTED_PARAMETER")
    assert f"'{field}'" in error.message
    if field in CreateCompletionRequest.DESCRIPTOR.fields_by_name:
        assert complete_error(**{field: value}).field == field


@pytest.mark.parametrize("name", ["function_call", "audio"])
def test_what_no_message_may_hold_any_more_is_named(name: str) -> None:
    message = {"role": "assistant", "content": "x", name: {"name": "f"}}
    assert chat_error(messages=[message]).field == f"messages[0].{name}"


def test_what_asks_for_nothing_is_taken() -> None:
    asks_nothing = {
        "use_beam_search": False,
        "length_penalty": 1.0,
        "spaces_between_special_tokens": True,
        "functions": [],
        "cache_salt": None,
    }
    assert chat(**asks_nothing) == chat()


def test_what_has_no_effect_is_taken() -> None:
    taken = {
        "store": True,
        "metadata": {str(number): "x" * 512 for number in range(16)},
        "service_tier": "flex",
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_retention": "24h",
        "verbosity": "high",
        "modalities": ["text"],
        "stream_options": None,
    }
    assert chat(**taken) == chat()
