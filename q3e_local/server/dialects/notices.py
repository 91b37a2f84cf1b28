"""Lines that the log gets once, however many requests cause them: `Notices`.

Knows lines of text; nothing of what they are about.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

LINES_MAX = 100  # a line may hold a client's words: they must not fill the memory


class Notices:
    """The lines that were logged. All dialects of a server share them, so that they do not repeat each other's."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def once(self, line: str, level: int = logging.INFO) -> None:
        """Log the line, unless it was logged before."""
        if line not in self._logged and len(self._logged) < LINES_MAX:
            self._logged.add(line)
            logger.log(level, line)
