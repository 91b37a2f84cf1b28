"""Lines that the log gets once, however many requests cause them: `Notices`.

Knows lines of text; nothing of what they are about.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

_AT_MOST = 100  # a line may hold a client's words: they must not fill the memory


class Notices:
    """The lines that were logged. One for a whole server, so that its dialects do not repeat each other."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def once(self, line: str, level: int = logging.INFO) -> None:
        """Log the line, unless it was logged before."""
        if line not in self._given and len(self._given) < _AT_MOST:
            self._given.add(line)
            logger.log(level, line)
