"""What a run of indexing did, in numbers and in reasons: `Tally`.

Knows no files and no index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from q3e_local.reading.walk import Skipped


@dataclass
class Tally:
    """What a run did. It is true at any time, also of a run that was interrupted."""

    n_new: int = 0
    n_changed: int = 0
    n_unchanged: int = 0
    n_removed: int = 0
    n_chunks: int = 0  # of new and changed files
    n_reused: int = 0  # chunks of these files whose vectors were in the index already
    n_tokens: int = 0  # that were embedded
    n_left_out: int = 0  # files that the index has and keeps, and that this run did not look at
    skipped: list[Skipped] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # why folders could not be looked at
    read_as: dict[str, list[Path]] = field(
        default_factory=dict
    )  # files that seem to be in another encoding than UTF-8
    notes: list[str] = field(default_factory=list)  # what else the user should know

    @property
    def n_faults(self) -> int:
        """Files that could not be read although they should."""
        return sum(not file.is_expected for file in self.skipped)
