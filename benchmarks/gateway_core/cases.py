"""What is asked of a gateway, and which mesh answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.mesh import SCRIPTED
from benchmarks.runs import Connect
from benchmarks.targets import chat_grpc, sse
from benchmarks.targets.prompt import TEXT
from services.worker.engines.scripted.vocabulary import WORDS, encode_output

STREAM_TOKENS = 128
API_KEY = "sk-of-the-benchmark"
# Tokens of a stream come so far apart that each is sent by itself, and so near that a second holds
# thousands of them.
_INTERVAL_MS = "10"
_ROOM = ("--limit-worker-concurrency", "1024", "--max-waiting", "1024")
_PACED = (*_ROOM, "--scripted-token-interval-ms", _INTERVAL_MS)
_WRITING = ("--scripted-repeats", "--chat-format", "qwen3")


@dataclass(frozen=True)
class Case:
    """One way of asking."""

    name: str
    connect: Connect
    completion_tokens: int = STREAM_TOKENS


@dataclass(frozen=True)
class Setup:
    """A mesh, and the cases that are measured on it."""

    pace: str
    worker_options: tuple[str, ...]
    cases: tuple[Case, ...]
    up_options: tuple[str, ...] = SCRIPTED


def _words(count: int) -> str:
    return "".join(f" {WORDS[index % len(WORDS)]}" for index in range(count))


_CALL = '<tool_call>\n{"name": "find", "arguments": {"words": "' + _words(20) + '"}}\n</tool_call>'
_THOUGHT_AND_CALL = f"<think>\n{_words(40)}\n</think>\n\n{_words(20)}\n{_CALL}"
_TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"words": {"type": "string"}}},
    },
}


def _chat(text: str, **more: object) -> Mapping[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "stream_options": {"include_usage": True}, **more}


def _written_tokens(text: str) -> int:
    """Of an answer that says a text to its end."""
    return len(encode_output(text)) + 1


_CHAT_FIELDS = _chat(TEXT, max_tokens=STREAM_TOKENS)
_RESPONSE_FIELDS = {"input": TEXT, "max_output_tokens": STREAM_TOKENS, "store": False}
_CHAT_PATH = "/v1/chat/completions"
_RESPONSES_PATH = "/v1/responses"
_COMPLETION_FIELDS = {
    "prompt": TEXT,
    "max_tokens": STREAM_TOKENS,
    "stream_options": {"include_usage": True},
}

CHAT = Case("chat", sse.connecting(_CHAT_PATH, _CHAT_FIELDS))
PLAIN = (
    CHAT,
    Case("chat, gRPC", chat_grpc.connect),
    Case("completions", sse.connecting("/v1/completions", _COMPLETION_FIELDS)),
    Case("responses", sse.connecting(_RESPONSES_PATH, _RESPONSE_FIELDS)),
)
WITH_KEY = (
    Case("chat, with a key", sse.connecting(_CHAT_PATH, _CHAT_FIELDS, api_key=API_KEY)),
    Case(
        "responses, with a key",
        sse.connecting(_RESPONSES_PATH, _RESPONSE_FIELDS, api_key=API_KEY),
    ),
)
PARSED = (
    Case(
        "chat, text of a model that calls",
        sse.connecting(_CHAT_PATH, _chat(_words(STREAM_TOKENS - 1))),
        STREAM_TOKENS,
    ),
    Case(
        "chat, thought and call",
        sse.connecting(_CHAT_PATH, _chat(_THOUGHT_AND_CALL, tools=[_TOOL])),
        _written_tokens(_THOUGHT_AND_CALL),
    ),
    Case(
        "responses, thought and call",
        sse.connecting(
            _RESPONSES_PATH,
            {
                "input": _THOUGHT_AND_CALL,
                "tools": [{"type": "function", **_TOOL["function"]}],  # type: ignore[dict-item]
                "store": False,
            },
        ),
        _written_tokens(_THOUGHT_AND_CALL),
    ),
)

SETUPS = (
    Setup("paced", _PACED, PLAIN),
    Setup("paced", _PACED, WITH_KEY, (*SCRIPTED, "--api-keys", API_KEY)),
    Setup("paced", (*_PACED, *_WRITING), PARSED),
    # All that a worker has is there at once, so that chunks wait and are merged.
    Setup("at once", _ROOM, PLAIN),
    Setup("at once", (*_ROOM, *_WRITING), PARSED),
)
