"""What people and programs see on stdout: tables, labelled facts, lines of JSON, text that cannot steer a terminal.

Knows columns, cells and terminals; nothing of what is shown. Words for counts and sizes are wording.counts'.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

PLAIN_WIDTH = 100  # columns of a table that goes to no terminal
_TEXT_WIDTH_MIN = 12
# What moves the cursor or colours, and what turns the order of letters around.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " ")


def visible(text: str) -> str:
    """Without the control characters that a text could steer the reader's terminal with."""
    return text.translate(_CONTROLS)


def from_here(path: str) -> str:
    """A path as the user would name it from the current folder: relative, if it is below."""
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):  # elsewhere; or the current folder is gone
        return path


def print_json(value: Any) -> None:
    """Write a value to stdout as a line of JSON."""
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    sys.stdout.buffer.write(orjson.dumps(value, option=options))
    sys.stdout.buffer.flush()


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Write a label and its value a line, without those whose value is None."""
    width = max(map(len, facts))
    for label, value in facts.items():
        if value is not None:
            click.echo(f"{label:<{width}}  {visible(value)}")


def csv_line(cells: Iterable[object]) -> bytes:
    """A row of CSV, in UTF-8."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode("utf-8")


def print_columns(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] = ()) -> None:
    """Write rows below their headings, as `columns` lays them out."""
    for line in columns(headings, rows, right):
        click.echo(line)


def columns(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Collection[str] = (),
    *,
    width: int | None = None,
    keep_end: Collection[str] = (),
) -> list[str]:
    """The lines of a table: columns as wide as their widest cell, and two spaces between them.

    Numbers stand at the right, and so do the columns in `right`. With a `width`, texts are cut until the lines fit;
    of the columns in `keep_end` the end is kept, which says most of a path, of others the beginning.
    """
    from rich.cells import cell_len  # knows how wide Chinese is

    values = [list(row) for row in rows]
    places = range(len(headings))
    is_text = [any(isinstance(row[place], str) for row in values) for place in places]
    cells = [list(headings), *([_cell(value) for value in row] for row in values)]
    widths = [max(cell_len(row[place]) for row in cells) for place in places]
    if width is not None:
        _narrow(widths, is_text, width - 2 * (len(headings) - 1))
    is_right = [not text or heading in right for text, heading in zip(is_text, headings, strict=True)]
    return [
        "  ".join(
            " " * (widths[place] - cell_len(row[place])) + row[place]
            if is_right[place]
            else fitted(row[place], widths[place], keep_end=headings[place] in keep_end)
            for place in places
        ).rstrip()
        for row in cells
    ]


def print_boxed(headings: Sequence[str], rows: Iterable[Sequence[str]], n_left: int, **options: Any) -> None:
    """Write a table of figures with lines around it, the first `n_left` columns left-aligned.

    `options` are those of rich's Table.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(**options)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < n_left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=PLAIN_WIDTH)
    console.print(table)


def fitted(text: str, width: int, *, keep_end: bool = False) -> str:
    """The text in so many columns of a terminal, filled with spaces, or cut with an ellipsis in place of the rest."""
    from rich.cells import cell_len, set_cell_size

    # More than fit, were some of no width: measuring a whole book would take minutes.
    n_most = 4 * width
    part = text[-n_most:] if keep_end else text[:n_most]
    if len(part) == len(text) and cell_len(part) <= width:
        return set_cell_size(part, width)
    if not keep_end:
        return set_cell_size(part, width - 1) + "…"
    while cell_len(part) > width - 1:
        part = part[1:]
    return set_cell_size("…" + part, width)


def _narrow(widths: list[int], is_text: Sequence[bool], room: int) -> None:
    """Narrow the columns of texts until all fit the room: the widest first, down to the next."""
    while sum(widths) > room:
        widest = max((width for width, text in zip(widths, is_text, strict=True) if text), default=0)
        if widest <= _TEXT_WIDTH_MIN:
            return
        widths[max(place for place, text in enumerate(is_text) if text and widths[place] == widest)] -= 1


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.4f}"
    return visible(value) if isinstance(value, str) else f"{value:,}"
