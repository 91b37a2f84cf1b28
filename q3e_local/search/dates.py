"""A time as people write it: a date, a date and a time of day, or how long ago.

Knows text and this machine's time zone; nothing of what the time is used for.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta

from q3e_local.errors import OptionError

_UNITS = {
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(days=7),
    "m": timedelta(days=30),
    "y": timedelta(days=365),
}
_AGO = re.compile(r"([0-9]{1,6})\s*(min|[hdwmy])", re.IGNORECASE)
_YEAR_OR_MONTH = re.compile(r"([0-9]{4})(?:-([0-9]{1,2}))?")


def moment(text: str) -> datetime:
    """`2026-11-01`, `2026/11/01`, `2026-11-01T09:30` (of this machine's zone, where it names none), `2026-11`,
    `2026`, `today`, `yesterday`, or a time ago: `30min`, `12h`, `7d`, `2w`, `3m` (months), `1y`.

    Raises OptionError for anything else, and for a time ago that is zero.
    """
    text = text.strip()
    with suppress(ValueError, OverflowError, OSError):
        found = _moment(text.lower().replace("/", "-"))
        if found is not None:
            return found.astimezone()
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    raise OptionError(
        f"{shown!r} is no date; give one such as 2026-11-01, 2026, yesterday, or a time ago: 30min, 12h, 7d for the "
        "last seven days, 2w, 3m for months, 1y"
    )


def _moment(text: str) -> datetime | None:
    today = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    if ago := _AGO.fullmatch(text):
        return datetime.now().astimezone() - int(ago[1]) * _UNITS[ago[2]] if int(ago[1]) else None
    if whole := _YEAR_OR_MONTH.fullmatch(text):
        return datetime(int(whole[1]), int(whole[2] or 1), 1)
    return datetime.fromisoformat(text.upper())
