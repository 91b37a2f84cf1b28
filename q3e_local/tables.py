"""Columns and rows as an HTML table, for notebooks.

Knows HTML alone: every cell is escaped, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

_ROWS_AT_MOST = 100
_CHARACTERS_AT_MOST = 300


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """The table, numbers with 4 decimals; long texts, and rows beyond the first hundred, are cut and say so."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    remaining = iter(rows)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in islice(remaining, _ROWS_AT_MOST)
    )
    n_more = sum(1 for _ in remaining)
    more = f"<tr><td colspan={len(columns)}>and {n_more:,} more rows</td></tr>" if n_more else ""
    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{titled}<thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table>"


def shortened(text: str, n_most: int = _CHARACTERS_AT_MOST) -> str:
    """The text in one line, its end replaced by an ellipsis where it is too long."""
    # Cut first: a whole book takes long to split.
    line = " ".join(text[: 4 * n_most].split())
    return line if len(line) <= n_most else line[: n_most - 1] + "…"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else escape(shortened(str(value)))
