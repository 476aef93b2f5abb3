"""The keys of a gateway as a whole: read, watched, asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from services.gateway.discovery.directory import Directory
from services.gateway.keys.current import check_model, current_access
from services.gateway.keys.file_watch import KeyFileWatch
from services.gateway.keys.interceptor import KeyInterceptor
from services.gateway.keys.key import Key
from services.gateway.keys.key_file import KeyFileError
from services.gateway.keys.metrics import KeyMetrics
from services.gateway.keys.model_access import ModelAccess
from services.gateway.keys.ring import KeyRing
from services.gateway.keys.sources import check_fit, first_keys_of_file
from services.gateway.relay.background import BackgroundTasks
from services.mesh.errors import StartError


class Gate:
    """Asks for keys where there are any to ask for.

    Args:
        fixed: the keys of --api-keys.
        file: --api-keys-file.

    Raises:
        StartError: the file cannot be used.
    """

    def __init__(
        self,
        fixed: Sequence[Key],
        file: Path | None,
        *,
        directory: Directory,
        metrics: KeyMetrics,
        tasks: BackgroundTasks,
    ) -> None:
        self.ring: KeyRing | None = None
        self.models = ModelAccess(directory)
        if not fixed and file is None:
            return
        self.ring = KeyRing(fixed, clock_s=time.monotonic, epoch_s=time.time, metrics_of=metrics.of)
        if file is not None:
            # Before the reading, so that what is written meanwhile is seen.
            watch = KeyFileWatch(file, self.ring, fixed, metrics)
            of_file = first_keys_of_file(file)
            try:
                check_fit(fixed, of_file)
            except KeyFileError as error:
                raise StartError(f"--api-keys-file {file}: {error}") from None
            self.ring.replace(of_file)
            tasks.begin(watch.run())
        metrics.note_keys(tuple(self.ring))

    @property
    def interceptors(self) -> tuple[grpc.aio.ServerInterceptor, ...]:
        """What the gateway's server is to have before its services."""
        return () if self.ring is None else (KeyInterceptor(self.ring, self.models),)

    def begin_turn(self, model: str) -> None:
        """Checks, and counts, a request within a call that was let in some time ago.

        Raises:
            UnauthenticatedError: its key counts no more.
            PermissionDeniedError, RateLimitedError: as for a call.
        """
        access = current_access()
        if self.ring is None or access is None:
            return
        self.ring.recheck(access)
        if model:
            check_model(model)
        access.account.begin_request()
