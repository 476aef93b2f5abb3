"""What a model can do that has a chat format."""

from __future__ import annotations

from services.worker.chat_formats.base import ChatFormat


def format_capabilities(chat_format: ChatFormat | None) -> frozenset[str]:
    """Names of tokenmesh.mesh.v1.Capability without their prefix, to be told beside the others."""
    if chat_format is None:
        return frozenset()
    told = {"TOOLS": chat_format.can_call, "REASONING": chat_format.can_reason}
    return frozenset(name for name, is_so in told.items() if is_so)
