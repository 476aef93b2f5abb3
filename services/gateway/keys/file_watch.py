"""Follows the file of keys: what is written there counts within a second, without a restart.

The file is looked at by name, again and again: an editor that writes it anew, a rename over it, and
a Kubernetes secret, whose directory is swapped behind a symbolic link, all show as another inode or
time. Nothing is held open, and no event can be missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog

from services.gateway.keys.key import Key
from services.gateway.keys.key_file import KeyFileError
from services.gateway.keys.ring import KeyRing
from services.gateway.keys.sources import check_fit, read_key_file

log = structlog.get_logger()

LOOK_INTERVAL_S = 0.5
"""A revoked key may enter for so long. Shorter costs a look at the disk each time."""

Signature = tuple[int, ...] | None


class FileMetrics(Protocol):
    """What is told of the file."""

    def note_file(self, *, is_valid: bool) -> None:
        """Whether the file, as it stands, could be read."""
        ...

    def note_keys(self, keys: Sequence[Key]) -> None:
        """These keys count now."""
        ...


class KeyFileWatch:
    """Keeps a ring's keys those of a file.

    Args:
        path: the file, or a symbolic link to it.
        fixed: the keys beside those of the file.
    """

    def __init__(
        self, path: Path, ring: KeyRing, fixed: Sequence[Key], metrics: FileMetrics
    ) -> None:
        self._path = path
        self._ring = ring
        self._fixed = tuple(fixed)
        self._metrics = metrics
        self._seen = signature(path)

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Reads the file if it has changed. One that cannot be used changes nothing."""
        found = await asyncio.to_thread(signature, self._path)
        if found == self._seen:
            return
        self._seen = found
        try:
            keys = await asyncio.to_thread(read_key_file, self._path)
            check_fit(self._fixed, keys)
            if await asyncio.to_thread(signature, self._path) != found:
                # It is being written: the next look finds it whole.
                self._seen = ()
                return
        except KeyFileError as error:
            self._metrics.note_file(is_valid=False)
            log.error(
                "the file of API keys cannot be used; the keys that were read before stay",
                file=str(self._path),
                problem=str(error),
            )
            return
        before = {key.name: key for key in self._ring}
        self._ring.replace(keys)
        after = {key.name: key for key in self._ring}
        self._metrics.note_file(is_valid=True)
        self._metrics.note_keys(tuple(after.values()))
        log.info(
            "API keys were read anew",
            file=str(self._path),
            added=sorted(after.keys() - before.keys()),
            removed=sorted(before.keys() - after.keys()),
            changed=sorted(
                name for name in after.keys() & before.keys() if after[name] != before[name]
            ),
        )


def signature(path: Path) -> Signature:
    """What tells one state of a file from another; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
