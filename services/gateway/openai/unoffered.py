"""Parameters that OpenAI or vLLM document and that nothing here does: refused by name, with the way
out where there is one. Ignoring them would give another answer than the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.message import Message

from services.gateway.openai.json_fields import plain
from services.mesh.errors import InvalidRequestError

REASONS: Mapping[str, str] = {
    "audio": "No model here speaks.",
    "web_search_options": "Nothing here searches the web: offer the model a tool that does.",
    "moderation": "Nothing here moderates.",
    "functions": "It is deprecated: use 'tools' instead.",
    "function_call": "It is deprecated: use 'tool_choice' instead.",
    "use_beam_search": "Outputs are sampled: use 'best_of' to choose among several.",
    "length_penalty": "It belongs to beam search, which no engine here does.",
    "spaces_between_special_tokens": "The tokenizer decides.",
    "truncate_prompt_tokens": "Prompts are never cut: send what fits, as /tokenize counts it.",
    "allowed_token_ids": "Use 'logit_bias' or 'structured_outputs' instead.",
    "logprob_token_ids": "Use 'top_logprobs' of chats and 'logprobs' of completions instead.",
    "logits_processors": "Requests bring no code.",
    "thinking_token_budget": "Use 'reasoning_effort' instead.",
    "repetition_detection": "Use 'repetition_penalty' or 'frequency_penalty' instead.",
    "cache_salt": "Prefix caches are shared between the users of a model.",
    "kv_transfer_params": "KV caches are not moved between workers.",
    "vllm_xargs": "No engine here takes them.",
    "guided_whitespace_pattern": "Use 'guided_grammar' to say where whitespace may stand.",
    "prompt_embeds": "Prompts are texts or token ids.",
}
# What asks for nothing.
_DEFAULTS: Mapping[str, Any] = {
    "use_beam_search": False,
    "length_penalty": 1.0,
    "spaces_between_special_tokens": True,
    "functions": [],
}


def refuse_unoffered(request: Message) -> None:
    """Refuses a request that asks for what is not offered.

    Raises:
        InvalidRequestError: names the first such field.
    """
    for descriptor, value in request.ListFields():
        name = descriptor.name
        if name in REASONS and _asks(name, value):
            raise InvalidRequestError(
                f"Unsupported parameter: '{name}'. {REASONS[name]}",
                reason="UNSUPPORTED_PARAMETER",
                field=name,
            )


def _asks(name: str, value: struct_pb2.Value) -> bool:
    asked = plain(value)
    return asked is not None and asked != _DEFAULTS.get(name)
