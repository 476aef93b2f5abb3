"""The beginning of a prompt, in the canonical form that routing makes its keys of.

Prompts with equal heads have equal leading tokens, whatever the model's chat template makes of
them. What ends with the first user message stays the same in every later turn of a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.gateway.routing.prefix import MAX_HEAD_BYTES, prefix_keys
from tokenmesh.mesh.v1 import chat_pb2
from tokenmesh.worker.v1 import worker_pb2

BYTES_PER_TOKEN_ID = 4
_SEPARATOR = b"\x00"


def prompt_keys(start: worker_pb2.Start) -> tuple[int, ...]:
    """Keys of a request's leading chunks, as `prefix_keys` makes them. KV blocks are of one model
    or adapter, so its name is part of every key.
    """
    head = bytearray(start.model.encode() + _SEPARATOR)
    kind = start.WhichOneof("prompt")
    if kind == "chat":
        for piece in _chat_pieces(start.chat):
            head += piece[:MAX_HEAD_BYTES] + _SEPARATOR
            if len(head) > MAX_HEAD_BYTES:
                break
    elif kind == "text":
        head += start.text[:MAX_HEAD_BYTES].encode()
    else:
        for token_id in start.token_ids.values[: MAX_HEAD_BYTES // BYTES_PER_TOKEN_ID]:
            head += token_id.to_bytes(BYTES_PER_TOKEN_ID)
    return prefix_keys(bytes(head), is_whole=kind == "chat")


def _chat_pieces(prompt: chat_pb2.ChatPrompt) -> Iterator[bytes]:
    """What a chat template renders, up to and with the first user message."""
    yield prompt.chat_template.encode()
    yield prompt.chat_template_arguments.SerializeToString(deterministic=True)
    for tool in prompt.tools:
        yield tool.SerializeToString(deterministic=True)
    for message in prompt.messages:
        yield chat_pb2.Role.Name(message.role).encode()
        for part in message.content:
            kind = part.WhichOneof("part")
            if kind == "text":
                yield part.text.encode()
            else:
                yield part.SerializeToString(deterministic=True)
        if message.role == chat_pb2.ROLE_USER:
            return
