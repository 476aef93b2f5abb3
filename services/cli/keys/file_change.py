"""Changes a file whole or not at all, one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keeps others who change files here out. Gives the folder's descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def change_file(path: Path, change: Callable[[str], str]) -> None:
    """Puts what `change` makes of a file's text in its place. A new file is for its owner alone;
    one that is there keeps its owner and mode. A symbolic link stays one.

    Raises:
        OSError: the file or its folder cannot be read or written.
        UnicodeDecodeError: it is not text.
    """
    target = path.resolve()
    with _locked(target.parent) as folder:
        try:
            before = target.stat()
            text = target.read_text()
        except FileNotFoundError:
            before, text = None, ""
        changed = change(text)
        descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(changed)
                if before is not None:
                    os.fchmod(descriptor, before.st_mode & 0o777)
                    if (before.st_uid, before.st_gid) != (os.getuid(), os.getgid()):
                        os.fchown(descriptor, before.st_uid, before.st_gid)
                file.flush()
                os.fsync(descriptor)
            Path(partial).replace(target)
        except BaseException:
            Path(partial).unlink()
            raise
        os.fsync(folder)
