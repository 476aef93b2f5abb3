"""When a key expires, as people say it. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def expiry_of(text: str, now_s: float) -> float:
    """Whole seconds since the epoch: of a span from now (12h, 30d, 4w), of a day's beginning in
    UTC, or of a time with its zone.

    Raises:
        ValueError: it is none, or over already. The message says what would do.
    """
    span = _SPAN.fullmatch(text.strip())
    try:
        if span is not None:
            return round(now_s) + int(span["number"]) * _UNITS[span["unit"]].total_seconds()
        instant = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError("give a span such as 30d, or a day such as 2027-01-31") from None
    if instant.tzinfo is None and "T" in text:
        raise ValueError("give the time's zone, too, such as 2027-01-31T12:00:00Z")
    seconds = instant.replace(tzinfo=instant.tzinfo or UTC).timestamp()
    if seconds <= now_s:
        raise ValueError("that is over already")
    return float(round(seconds))
