"""OpenAI's JSON for completions becomes typed requests, or an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.openai.completions.request import MAX_PROMPTS
from tests.openai_requests import chat, complete, complete_error


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("p", ["p"]),
        (["p", "q"], ["p", "q"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["p", [4]], ["p", [4]]),
        ("", [""]),
    ],
)
def test_every_kind_of_prompt(prompt: Any, expected: list[Any]) -> None:
    found = [
        each.text if each.WhichOneof("prompt") == "text" else list(each.token_ids.values)
        for each in complete(prompt=prompt)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["p", 5]}, "prompt[1]"),
        ({"prompt": [1, "p"]}, "prompt[1]"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["p"] * (MAX_PROMPTS + 1)}, "prompt"),
        ({"suffix": "s"}, "suffix"),
        ({"logprobs": -1}, "logprobs"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"add_special_tokens": False}, "add_special_tokens"),
    ],
)
def test_a_bad_completion_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert complete_error(**fields).field == field


def test_completion_defaults() -> None:
    (request,) = complete()
    assert request.sampling.max_tokens == 16
    assert not request.echo
    (logprobs,) = complete(logprobs=0)
    assert logprobs.sampling.HasField("top_logprobs")
    assert not logprobs.sampling.HasField("prompt_top_logprobs")


def test_log_probabilities_of_an_echo_are_those_of_the_prompt_too() -> None:
    (request,) = complete(logprobs=3, echo=True)
    assert request.echo
    assert (request.sampling.top_logprobs, request.sampling.prompt_top_logprobs) == (3, 3)


def test_log_probabilities_of_the_prompt_beside_those_of_an_echo() -> None:
    (request,) = complete(logprobs=1, echo=True, prompt_logprobs=4)
    assert (request.sampling.top_logprobs, request.sampling.prompt_top_logprobs) == (1, 4)
    assert chat(prompt_logprobs=2).sampling.prompt_top_logprobs == 2
