"""Which models a key may use and see. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from services.gateway.discovery.directory import Directory, ServedModel
from services.gateway.discovery.fleet import Model
from services.gateway.keys.account import Account

Allows = Callable[[str], bool]


class ModelAccess:
    """Holds the names that clients ask for against the patterns of their keys.

    An alias is allowed with the model that it stands for; an adapter is a model of its own.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def check(self, account: Account, name: str) -> None:
        """Checks a name that a client asks for.

        Raises:
            PermissionDeniedError: the key may not use it, whether or not there is such a model.
        """
        if not (account.key.matches(name) or account.key.matches(self._own_name(name))):
            account.refuse_model(name)

    def _own_name(self, name: str) -> str:
        served = self._directory.find(name)
        if served is None or all(name != alias for alias in served.model.aliases):
            return name
        return served.model.name


def visible(served: Iterable[ServedModel], allows: Allows) -> Iterator[ServedModel]:
    """What of the models may be seen, under the names that may be asked for. An adapter or alias
    whose model may not be used is shown by itself.
    """
    for each in served:
        model = each.model
        adapters = tuple(adapter for adapter in model.adapters if allows(adapter.name))
        if allows(model.name):
            yield replace(each, model=replace(model, adapters=adapters))
            continue
        aliases = [alias for alias in model.aliases if allows(alias)]
        for name in (*(adapter.name for adapter in adapters), *aliases):
            yield replace(each, model=_alone(model, name))


def _alone(model: Model, name: str) -> Model:
    return replace(model, name=name, aliases=(), adapters=())
