"""Fields that a route does not have: ignored, as the peers do, and logged.

Knows fields; nothing of what they mean.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from q3e_local.server.dialects.body import Fields, field_name

logger = logging.getLogger(__name__)

_TOLD_AT_MOST = 100  # names are the clients' own: they must not fill the memory


class Ignored:
    """Says once for each field that it is ignored: a misspelt one is found in the log. `others` are fields too."""

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = tuple(others)
        self._told: set[tuple[str, str]] = set()

    def tell(self, fields: Fields, path: str, known: Mapping[str, Any]) -> None:
        """Log what of a request's fields is none of the route's."""
        # A client may send a million unknown fields, and only so many names are logged in all.
        unknown = islice(fields.unknown((*known, *self._others)), _TOLD_AT_MOST)
        for name in map(field_name, unknown):
            if (path, name) not in self._told and len(self._told) < _TOLD_AT_MOST:
                self._told.add((path, name))
                logger.warning("%s has no field %s, and ignores it; it has %s", path, name, ", ".join(known))
