"""Plain characters in place of those that an encoding lacks: `>>` for `»` in GBK, `?` where none fits."""

from __future__ import annotations

import codecs
import unicodedata

ERRORS = "q3e-plain"
"""The name of the error handler, for `errors=` of a text stream, once `register` was called."""

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
"""The frames of a sign that work goes on."""

_PLAIN = dict(zip(SPINNER, "|/-\\|/-\\|/", strict=True)) | {
    "«": "<<", "»": ">>", "‹": "<", "›": ">",
    "“": '"', "”": '"', "„": '"', "‟": '"', "‘": "'", "’": "'", "‚": "'", "′": "'", "″": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",
    "•": "*", "·": ".", "‣": "*", "▪": "*", "●": "*", "○": "o",
    "→": "->", "←": "<-", "↔": "<->", "⇒": "=>", "↑": "^", "↓": "v",
    "×": "x", "÷": "/", "±": "+-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "⁄": "/",
    "✓": "v", "✔": "v", "✗": "x", "✘": "x", "°": " deg", "©": "(c)", "®": "(R)", "€": "EUR", "£": "GBP",
    "━": "=", "─": "-", "═": "=", "│": "|", "┃": "|", "…": "...",
}  # fmt: skip


def register() -> None:
    """Make the error handler known to all text streams."""
    codecs.register_error(ERRORS, _replaced)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_plain, lacking)), error.end


def _plain(character: str) -> str:
    """ASCII in place of a character."""
    if character in _PLAIN:
        return _PLAIN[character]
    # é becomes e and an accent, a full-width A an A, an odd space a space.
    parts = unicodedata.normalize("NFKD", character)
    letters = "".join(_PLAIN.get(part, part) for part in parts if not unicodedata.combining(part))
    return letters if letters and letters.isascii() else "?"
