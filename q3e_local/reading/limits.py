"""How much of a file is read before it is refused: bounds against bombs and mistakes.

Knows numbers and how to say that one is exceeded; nothing of formats.
"""

from __future__ import annotations

from dataclasses import dataclass

from q3e_local.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one file. A file above one of them is refused whole: half a file is nothing to search in."""

    size_bytes: int = 100_000_000
    unpacked_bytes: int = 400_000_000  # of all that a zip-based file holds: DOCX, PPTX, EPUB
    part_bytes: int = 30_000_000  # of one XML part of it, whose tree takes up to twenty times that in memory
    n_pages: int = 5_000
    n_characters: int = 20_000_000  # of text; some 5 million tokens, hours of embedding

    def check_size(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes:
            raise InputError(
                f"is too large: {_megabytes(size_bytes)}, the limit is {_megabytes(self.size_bytes)}; split it"
            )

    def check_unpacked(self, n_bytes: int) -> None:
        if n_bytes > self.unpacked_bytes:
            raise InputError(
                f"unpacks to more than the limit of {_megabytes(self.unpacked_bytes)}; split it, or take out pictures"
            )

    def check_part(self, name: str, n_bytes: int) -> None:
        if n_bytes > self.part_bytes:
            raise InputError(f"has a part {name!r} larger than the limit of {_megabytes(self.part_bytes)}; split it")

    def check_pages(self, n_pages: int) -> None:
        if n_pages > self.n_pages:
            raise InputError(f"has {n_pages:,} pages, the limit is {self.n_pages:,}; split it")

    def check_characters(self, n_characters: int) -> None:
        if n_characters > self.n_characters:
            raise InputError(f"has more than {self.n_characters:,} characters of text, which is the limit; split it")


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.3g} MB" if n_bytes < 1e8 else f"{n_bytes / 1e6:,.0f} MB"
