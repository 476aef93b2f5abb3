"""What the clients ask: one request for each thing that a stream must carry over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

PROMPT = "Tell me of the sea, the moon and a small house on the hill"


@dataclass(frozen=True)
class Question:
    """A request that has exactly one right answer."""

    name: str
    path: str
    body: dict[str, Any] = field(hash=False)

    def to_bytes(self, host: str, request_id: str) -> bytes:
        """The HTTP request, on a connection of its own."""
        content = json.dumps(self.body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


VARIANTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 0.9, "top_p": 0.95, "seed": 11},
    "penalties": {"seed": 12, "frequency_penalty": 0.7, "presence_penalty": 0.4},
    "repetition": {"seed": 13, "repetition_penalty": 1.2},
    "min_tokens": {"seed": 14, "min_tokens": 40, "ignore_eos": False},
    "stop": {"seed": 15, "stop": ["the young winter", "zzz", "never ever"]},
    "logprobs": {"seed": 16, "logprobs": True, "top_logprobs": 3},
    "choices": {"seed": 17, "n": 3},
    "bias": {"seed": 18, "logit_bias": {"100": 5, "101": -100}},
}
"""By name: what a chat request has beside its prompt and length."""


def questions(model: str, tokens: int, variants: Sequence[str] = tuple(VARIANTS)) -> list[Question]:
    """Chats of every variant, one completion, and one answer that is sent whole; of so many tokens
    each.
    """
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = {key: value for key, value in asked.items() if not key.startswith("stream")}
    chat = {"messages": [{"role": "user", "content": PROMPT}]}
    return [
        *(
            Question(f"{model} {name}", CHAT, {**asked, **chat, **VARIANTS[name]})
            for name in variants
        ),
        Question(f"{model} completion", COMPLETIONS, {**asked, "prompt": PROMPT, "seed": 19}),
        Question(f"{model} whole", CHAT, {**whole, **chat, "seed": 20}),
    ]
