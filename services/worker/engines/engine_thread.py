"""The thread in which an engine loads its model and computes: it alone touches the model."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import structlog

from services.mesh.errors import StartError

log = structlog.get_logger()

A = TypeVar("A")
T = TypeVar("T")

STOP_LIMIT_S = 5.0
"""How long `join` waits for what the thread computes. A model that is still loading cannot be
interrupted; its thread does not keep the process from ending."""


class EngineThread(Generic[A]):
    """Started once.

    Args:
        engine: the engine's name, for people.
        assemble: loads the model. Called in the thread.
        run: computes with it until it is told to stop. Called in the thread.
        on_fault: called on the event loop with what `run` raises, which is a bug.
    """

    def __init__(
        self,
        engine: str,
        assemble: Callable[[], A],
        run: Callable[[A], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._engine = engine
        self._assemble = assemble
        self._run = run
        self._on_fault = on_fault
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    async def start(self) -> A:
        """Returns what `assemble` made, once it has.

        Raises:
            StartError: it made nothing.
        """
        self._loop = asyncio.get_running_loop()
        assembled: asyncio.Future[A] = self._loop.create_future()
        # A daemon, so that a process that gives up while a model loads can end.
        self._thread = threading.Thread(
            target=self._work, args=(assembled,), name="engine", daemon=True
        )
        self._thread.start()
        return await assembled

    async def join(self) -> bool:
        """Returns when the thread has ended, or after the limit: whether there was one to wait for.

        Of several calls the first waits.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return False
        await asyncio.to_thread(thread.join, STOP_LIMIT_S)
        if thread.is_alive():
            log.warning("the engine is left behind: it still loads, or computes a long step")
        return True

    def call(self, callback: Callable[[], object]) -> None:
        """Has the event loop call back, from any thread; unless it is closed: then nobody waits."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _work(self, assembled: asyncio.Future[A]) -> None:
        try:
            assembly = self._assembly()
        except StartError as error:
            self.call(partial(settle, assembled, error))
            return
        self.call(partial(settle, assembled, assembly))
        try:
            self._run(assembly)
        except Exception as error:
            log.exception("the engine broke down")
            self.call(partial(self._on_fault, error))

    def _assembly(self) -> A:
        try:
            return self._assemble()
        except StartError:
            raise
        except ModuleNotFoundError as error:
            raise StartError(
                f"the {self._engine} engine needs the Python package {error.name!r}, which is not "
                "installed: pip install 'tokenmesh[transformers]'"
            ) from error
        except Exception as error:
            log.exception("cannot start the engine")
            raise StartError(f"cannot start the engine: {error!r}") from error


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Sets what a future came to, unless it has been settled."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
