"""The key of the call that a task serves."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from services.gateway.keys.ring import Access

_current: ContextVar[Access | None] = ContextVar("key_access", default=None)


def current_access() -> Access | None:
    """The key that the call was let in with; None where the gateway asks for none."""
    return _current.get()


def bind_access(access: Access) -> None:
    """Has the task, and what it begins, serve this key: for good, since each call has its own."""
    _current.set(access)


def allowed_names() -> Callable[[str], bool]:
    """Tells which names of models the call's key may use; all where none is asked for."""
    access = _current.get()
    return (lambda name: True) if access is None else access.account.key.matches
