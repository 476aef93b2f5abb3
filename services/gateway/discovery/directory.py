"""Which worker serves what: what several controllers told, merged.

Everything here is soft. A controller that restarts makes nothing vanish (its LEARNING snapshots
only add), and with every controller gone the gateway serves from what it last knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from operator import itemgetter
from typing import TypeVar

from services.gateway.discovery.controller_view import ControllerView, Entry
from services.gateway.discovery.fleet import Model, Worker, WorkerKey
from services.mesh.errors import ModelNotFoundError, NoWorkerError

_Key = TypeVar("_Key")

RETRY_AFTER_S = 2.0
"""One heartbeat interval: so long a worker that comes back may take to be known again."""


class RemovalCause(Enum):
    """Why a controller says that a worker is gone."""

    LEFT = "left"
    EXPIRED = "expired"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Removal:
    """A worker that a controller says is gone."""

    worker_id: str
    incarnation: str
    cause: RemovalCause


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, and how many workers take requests for it."""

    model: Model
    serving_workers: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name that a client asked for stands for.

    `name` is the model's or the adapter's own name; `workers` take requests for it just now; they
    are in the order of their worker ids, and never empty.
    """

    name: str
    model: Model
    workers: Sequence[Worker]


class Directory:
    """The workers of the mesh, by worker id and by the names they answer to.

    Args:
        clock_s: a monotonic clock, in seconds.
        forget_after_s: how long a model stays known after its last worker went, so that its clients
            are told to try again rather than that it does not exist. Also how long a worker stays
            known that only a lost controller told of, while others are connected.
    """

    def __init__(self, *, clock_s: Callable[[], float], forget_after_s: float = 60.0) -> None:
        self._clock_s = clock_s
        self._forget_after_s = forget_after_s
        self._views: dict[str, ControllerView] = {}
        self._workers: dict[str, Worker] = {}
        self._holders: dict[str, dict[str, Model]] = {}
        self._gone_at_s: dict[str, float] = {}
        self._retired_at_s: dict[WorkerKey, float] = {}
        self._was_complete = False

    def apply_snapshot(
        self, controller: str, workers: Iterable[Worker], *, is_complete: bool
    ) -> None:
        """Takes over all that a controller knows; `is_complete` when what is missing is gone."""
        view = self._views.setdefault(controller, ControllerView())
        touched = view.replace(self._seen(view, workers), is_complete=is_complete)
        self._merge(touched, is_complete=is_complete)

    def apply_delta(
        self,
        controller: str,
        upserted: Iterable[Worker],
        removed: Iterable[Removal],
        *,
        is_complete: bool,
    ) -> None:
        """Takes over what has changed at a controller."""
        view = self._views.setdefault(controller, ControllerView())
        touched: set[str] = set()
        for removal in removed:
            if removal.cause is not RemovalCause.EXPIRED:
                self._retire((removal.worker_id, removal.incarnation))
            touched |= view.remove(removal.worker_id, removal.incarnation)
            touched.add(removal.worker_id)
        touched |= view.upsert(self._seen(view, upserted), is_complete=is_complete)
        self._merge(touched, is_complete=is_complete)

    def lose_controller(self, controller: str) -> None:
        """Notes that a controller cannot be reached: what it told stays known."""
        view = self._views.get(controller)
        if view is not None and view.is_connected:
            self._merge(view.lose(self._clock_s()), is_complete=False)

    def forget_stale(self) -> None:
        """Drops what is long gone, and what only controllers told that were lost long ago, where
        others are there to ask. To be called every few seconds.
        """
        oldest_s = self._clock_s() - self._forget_after_s
        self._gone_at_s = _since(self._gone_at_s, oldest_s)
        self._retired_at_s = _since(self._retired_at_s, oldest_s)
        if not any(view.is_connected and view.is_complete for view in self._views.values()):
            return
        touched: set[str] = set()
        for view in self._views.values():
            if view.lost_at_s is not None and view.lost_at_s <= oldest_s:
                touched |= view.clear()
        self._merge(touched, is_complete=True)

    def workers(self) -> list[Worker]:
        """All workers, by worker id."""
        return [self._workers[worker_id] for worker_id in sorted(self._workers)]

    def models(self) -> list[ServedModel]:
        """All models of all workers, by name; also those whose workers all drain.

        A model has the aliases and adapters that any of its workers has.
        """
        by_name: dict[str, ServedModel] = {}
        for worker in self.workers():
            for model in worker.models:
                known = by_name.get(model.name, ServedModel(model, 0))
                by_name[model.name] = ServedModel(
                    _joined(known.model, model), known.serving_workers + (not worker.draining)
                )
        return [by_name[name] for name in sorted(by_name)]

    def find(self, name: str) -> ServedModel | None:
        """The model that a name stands for, whether or not its workers drain; None for none."""
        holders = self._holders.get(name)
        if not holders:
            return None
        model = min(holders.values(), key=lambda model: (_rank(name, model), model.name))
        return next(served for served in self.models() if served.model.name == model.name)

    def resolve(self, name: str) -> Resolution:
        """What a model's, adapter's or alias's name stands for, and who takes requests for it.

        A model's own name goes before an adapter's, and that before an alias. An alias that stands
        for several models stands for the first of them, by name, that has a worker.

        Raises:
            ModelNotFoundError: nobody serves it.
            NoWorkerError: it is known, but no worker takes requests for it just now; or no
                controller has told yet what there is.
        """
        holders = self._holders.get(name)
        if not holders:
            raise self._missing(name)
        serving = [
            (worker, model)
            for worker_id, model in sorted(holders.items(), key=itemgetter(0))
            if not (worker := self._workers[worker_id]).draining
        ]
        if not serving:
            raise NoWorkerError(
                f"all workers that serve {name!r} are draining; try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        rank, chosen = min(
            ((_rank(name, model), model) for _, model in serving),
            key=lambda ranked: (ranked[0], ranked[1].name),
        )
        workers = [worker for worker, model in serving if model.name == chosen.name]
        return Resolution(name if rank is not _Rank.ALIAS else chosen.name, chosen, workers)

    def _missing(self, name: str) -> ModelNotFoundError | NoWorkerError:
        if not self._was_complete:
            return NoWorkerError(
                f"no controller has told yet whether there is a model {name!r}; try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        gone_at_s = self._gone_at_s.get(name)
        if gone_at_s is not None and self._clock_s() < gone_at_s + self._forget_after_s:
            return NoWorkerError(
                f"all workers that served {name!r} are gone; try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        return ModelNotFoundError(
            f"no model is called {name!r}; list the models to see what there is", field="model"
        )

    def _seen(self, view: ControllerView, workers: Iterable[Worker]) -> Iterator[Worker]:
        """The same workers; what they replace in the view is retired."""
        for worker in workers:
            entry = view.get(worker.worker_id)
            if entry is not None and entry.worker.incarnation != worker.incarnation:
                self._retire(entry.worker.key)
            yield worker

    def _retire(self, key: WorkerKey) -> None:
        """Has what other controllers still say of an ended incarnation ignored for a while."""
        self._retired_at_s[key] = self._clock_s()

    def _is_retired(self, key: WorkerKey) -> bool:
        retired_at_s = self._retired_at_s.get(key)
        return retired_at_s is not None and self._clock_s() < retired_at_s + self._forget_after_s

    def _merge(self, worker_ids: Iterable[str], *, is_complete: bool) -> None:
        self._was_complete = self._was_complete or is_complete
        for worker_id in worker_ids:
            self._set(worker_id, self._latest(worker_id))

    def _latest(self, worker_id: str) -> Worker | None:
        """The incarnation that the controllers know, as it was last described.

        Where they differ, the one counts that attached last; but controllers that speak go before
        those that are lost, whose clocks need not agree with theirs. Where all are lost, what was
        known stays.
        """
        told = [
            (view, entry)
            for view in self._views.values()
            if (entry := view.get(worker_id)) is not None and not self._is_retired(entry.worker.key)
        ]
        if not told:
            return None
        vouched = [entry for view, entry in told if view.vouches(worker_id)]
        entries = [entry for _, entry in told]
        incarnation = self._newest(worker_id, vouched, entries)
        current = [entry for entry in entries if entry.worker.incarnation == incarnation]
        return max(current, key=lambda entry: entry.order).worker

    def _newest(self, worker_id: str, vouched: Sequence[Entry], entries: Sequence[Entry]) -> str:
        known = self._workers.get(worker_id)
        told = {entry.worker.incarnation for entry in entries}
        if not vouched and known is not None and known.incarnation in told:
            return known.incarnation
        attached = max(vouched or entries, key=lambda entry: entry.worker.attached_at_s)
        return attached.worker.incarnation

    def _set(self, worker_id: str, worker: Worker | None) -> None:
        before = self._workers.get(worker_id)
        if worker is not None:
            self._workers[worker_id] = worker
        else:
            self._workers.pop(worker_id, None)
        models_before = () if before is None else before.models
        models = () if worker is None else worker.models
        if models_before == models:
            return
        for name in {name for model in models_before for name in names_of(model)}:
            holders = self._holders[name]
            holders.pop(worker_id, None)
            if not holders:
                del self._holders[name]
                self._gone_at_s[name] = self._clock_s()
        for model in models:
            for name in names_of(model):
                holders = self._holders.setdefault(name, {})
                held = holders.get(worker_id)
                if held is None or _rank(name, model) < _rank(name, held):
                    holders[worker_id] = model
                self._gone_at_s.pop(name, None)


def _since(times_s: dict[_Key, float], oldest_s: float) -> dict[_Key, float]:
    return {key: at_s for key, at_s in times_s.items() if at_s > oldest_s}


class _Rank(IntEnum):
    """What a name is to a model; lower goes first."""

    MODEL = 0
    ADAPTER = 1
    ALIAS = 2


def _rank(name: str, model: Model) -> _Rank:
    if name == model.name:
        return _Rank.MODEL
    if any(name == adapter.name for adapter in model.adapters):
        return _Rank.ADAPTER
    return _Rank.ALIAS


def _joined(model: Model, other: Model) -> Model:
    """The model with the aliases and adapters of both: each is served by some worker."""
    if model.aliases == other.aliases and model.adapters == other.adapters:
        return model
    adapters = {each.name: each for each in (*other.adapters, *model.adapters)}
    return replace(
        model,
        aliases=tuple(sorted({*model.aliases, *other.aliases})),
        adapters=tuple(adapters[name] for name in sorted(adapters)),
    )


def names_of(model: Model) -> list[str]:
    """All names that a model answers to."""
    return [model.name, *(adapter.name for adapter in model.adapters), *model.aliases]
