"""The key of the call that a task serves."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from services.gateway.keys.account import Account
from services.gateway.keys.place import LetGo, Place
from services.gateway.keys.ring import Access

ModelCheck = Callable[[Account, str], None]

_current: ContextVar[Access | None] = ContextVar("key_access", default=None)
_model_check: ContextVar[ModelCheck] = ContextVar("model_check")
_place: ContextVar[Place | None] = ContextVar("key_place", default=None)


def current_access() -> Access | None:
    """The key that the call was let in with; None where the gateway asks for none."""
    return _current.get()


def bind_access(access: Access, check: ModelCheck) -> None:
    """Has the task, and what it begins, serve this key: for good, since each call has its own.

    `check` raises for a model that a key may not use.
    """
    _current.set(access)
    _model_check.set(check)


def bind_place(place: Place) -> None:
    """Tells which place the call has."""
    _place.set(place)


def hold_place() -> LetGo:
    """Keeps the call's place among those of its key until what is returned is called, also when the
    call has ended. For what goes on in the background.
    """
    place = _place.get()
    return (lambda: None) if place is None else place.hold()


def check_model(name: str) -> None:
    """Checks a model that a call asks for anywhere but in its request's own field `model`, against
    which its key was held already.

    Raises:
        PermissionDeniedError: the call's key may not use it, whether or not there is such a model.
    """
    access = _current.get()
    if access is not None:
        _model_check.get()(access.account, name)


def allowed_names() -> Callable[[str], bool]:
    """Tells which names of models the call's key may use; all where none is asked for."""
    access = _current.get()
    return (lambda name: True) if access is None else access.account.key.matches
