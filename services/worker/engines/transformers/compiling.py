"""Compiles forms off the event loop, so that nobody waits for the large form of another."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from services.mesh.errors import UnavailableError
from services.worker.engines.forms import Form, size_bytes

if TYPE_CHECKING:
    from services.worker.engines.constraints import ConstraintCompiler

SMALL_FORM_BYTES = 8 * 1024
"""A form of less text compiles within some tens of milliseconds. It never waits for larger ones."""
WAIT_LIMIT_S = 20.0
"""How long a request waits for its form. The largest that are allowed compile in seconds."""


class Compiling:
    """Compiles forms, one small and one large at a time."""

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forms")
        self._large = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-forms")

    async def compile(self, compiler: ConstraintCompiler, form: Form) -> None:
        """Returns when the compiler has the form.

        Raises:
            InvalidRequestError: as ConstraintCompiler.compile.
            UnavailableError: others have compiled large forms for too long.
        """
        if compiler.is_compiled(form):
            return
        threads = self._small if size_bytes(form) <= SMALL_FORM_BYTES else self._large
        loop = asyncio.get_running_loop()
        compiled = loop.run_in_executor(threads, compiler.compile, form)
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                await compiled
        except TimeoutError:
            raise UnavailableError(
                f"the form of the output was not compiled within {WAIT_LIMIT_S:g} s: this worker "
                "compiles others",
                retry_after_s=WAIT_LIMIT_S,
            ) from None

    def close(self) -> None:
        """Drops what waits. What is being compiled ends by itself."""
        for threads in (self._small, self._large):
            threads.shutdown(wait=False, cancel_futures=True)
