"""A time as people write it: a date, a date and a time of day, or how long ago.

Knows text and this machine's time zone; nothing of what the time is for.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta

from q3e_local.errors import OptionError

_HOURS = {"h": 1, "d": 24, "w": 7 * 24, "m": 30 * 24, "y": 365 * 24}
_AGO = re.compile(r"([0-9]{1,6})\s*([hdwmy])", re.IGNORECASE)


def moment(text: str) -> datetime:
    """`2026-11-01`, `2026-11-01T09:30` (of this machine's zone, where it names none), `12h`, `7d`, `2w`, `3m`, `1y`.

    Raises OptionError for anything else.
    """
    text = text.strip()
    ago = _AGO.fullmatch(text)
    with suppress(ValueError, OverflowError, OSError):
        if ago is not None:
            return datetime.now().astimezone() - timedelta(hours=int(ago[1]) * _HOURS[ago[2].lower()])
        return datetime.fromisoformat(text).astimezone()
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    raise OptionError(f"{shown!r} is no date; give one such as 2026-11-01, or 7d for the last seven days")
