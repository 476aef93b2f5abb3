"""Structured logs: readable lines on a terminal, one JSON object a line elsewhere.

What is bound with `structlog.contextvars` (the request id, for one) is in every line of a task.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


GRPC_HEADER_MESSAGE = "Invalid encoding on %s"
"""gRPC logs the whole value of a header that is no UTF-8. It may be a key with a byte too many."""


def _hide_header(record: logging.LogRecord) -> bool:
    """Has such a record tell what happened without the value."""
    if record.msg == GRPC_HEADER_MESSAGE:
        record.msg = "a call's header is no UTF-8; its value is not logged"
        record.args = ()
        record.exc_info = None
    return True


def configure(service: str, level: Level = "info", log_format: LogFormat = "auto") -> None:
    """Sends the logs of this process, the standard library's included, to standard error."""
    as_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            # Log files of people's own meshes hold neither colours nor boxes.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if as_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_hide_header)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
