"""The life of a service process: configure, run until a signal, report what stopped the start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
import uvloop

from services.mesh import logs
from services.mesh.errors import StartError

log = structlog.get_logger()

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CANNOT_START = 2


@dataclass(frozen=True)
class ReadyNotice:
    """Where a service that has started can be reached: the content of its ready file."""

    service: str
    process_id: int
    address: str
    metrics_address: str


def announce_ready(path: Path | None, service: str, address: str, metrics_address: str) -> None:
    """Writes the ready file, whole or not at all, for whoever started this process.

    Raises:
        StartError: the file cannot be written.
    """
    log.info("ready", address=address, metrics_address=metrics_address)
    if path is None:
        return
    notice = ReadyNotice(service, os.getpid(), address, metrics_address)
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(asdict(notice)))
        partial.replace(path)
    except OSError as error:
        raise StartError(f"cannot write --ready-file {path}: {error.strerror}") from error


def read_ready(path: Path) -> ReadyNotice | None:
    """The notice in a ready file; None while the service has not written it."""
    try:
        return ReadyNotice(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def stop_event() -> asyncio.Event:
    """An event that the first SIGINT or SIGTERM sets. A second signal ends the process at once."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        event.set()
        for each in STOP_SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return event


def run_service(
    service: str,
    serve: Callable[[asyncio.Event], Awaitable[None]],
    *,
    log_level: logs.Level = "info",
    log_format: logs.LogFormat = "auto",
) -> None:
    """Runs `serve` until it returns. It gets an event that is set when the process should stop.

    A StartError is printed as one line, and the process exits with code 2.
    """
    logs.configure(service, log_level, log_format)

    async def main() -> None:
        await serve(stop_event())

    try:
        uvloop.run(main())
    except StartError as error:
        print(f"{service}: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_CANNOT_START) from None
