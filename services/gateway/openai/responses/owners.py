"""Whose a response is."""

from __future__ import annotations

from services.gateway.keys.current import current_access

ANYBODY = ""


def current_owner() -> str:
    """Whose responses the present call is about: those of its key, or of anybody where keys are not
    asked for. An address would not do: clients change theirs.
    """
    access = current_access()
    return ANYBODY if access is None else access.account.key.identity
