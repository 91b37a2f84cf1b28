"""Columns and rows as an HTML table, for notebooks.

Knows HTML alone, and escapes every cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

_ROWS_AT_MOST = _COLUMNS_AT_MOST = 100
_CHARACTERS_AT_MOST = 300


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """The table, numbers with 4 decimals. Long texts, and more than 100 rows or columns, are cut and marked."""
    n_hidden = max(0, len(columns) - _COLUMNS_AT_MOST)
    heads = [*columns[:_COLUMNS_AT_MOST], *([f"and {n_hidden:,} more columns"] if n_hidden else [])]
    head = "".join(f"<th>{_cell(column)}</th>" for column in heads)
    remaining = iter(rows)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row[:_COLUMNS_AT_MOST])}</tr>"
        for row in islice(remaining, _ROWS_AT_MOST)
    )
    n_more = sum(1 for _ in remaining)
    more = f"<tr><td colspan={len(heads)}>and {n_more:,} more rows</td></tr>" if n_more else ""
    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{titled}<thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table>"


def shortened(text: str, n_most: int = _CHARACTERS_AT_MOST) -> str:
    """The text in one line, its end replaced by an ellipsis where it is too long."""
    # Cut first: a whole book takes long to split.
    n_split = 4 * n_most
    line = " ".join(text[:n_split].split())
    is_whole = len(line) <= n_most and not text[n_split:].strip()
    return line if is_whole else line[: n_most - 1] + "…"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else escape(shortened(str(value)))
