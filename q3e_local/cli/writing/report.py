"""How a job's result is written: a table on a terminal, JSON Lines in a pipe, CSV where it is asked for.

Knows rows and objects, nothing of what they mean. A file lands whole.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
import orjson

from q3e_local.cli.writing.formats import visible
from q3e_local.cli.writing.outputs import cannot_write, check_target, settle
from q3e_local.errors import OptionError
from q3e_local.files import landing
from q3e_local.wording.html_table import shortened

_WIDTH = 100  # of a table that goes to no terminal
_TEXT_WIDTH_MIN = 12
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".txt": "table"}
_PLACES = ("id", "source", "first", "last")  # columns of paths
_FORMS = ("table", "jsonl", "csv")


@dataclass(frozen=True)
class Report:
    """A result. `objects` are for JSON Lines; `rows`, of the same facts flat, for CSV and the table.

    A table has only the columns in `shown`, as a terminal is narrow, and only the rows that `is_shown` is true of;
    None: all.
    """

    objects: Iterable[Mapping[str, Any]]
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    shown: Sequence[str] | None = None
    is_shown: Callable[[Sequence[object]], bool] | None = None


@dataclass(frozen=True)
class Target:
    """Where a report goes. None is stdout."""

    path: Path | None
    form: str


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters `output`, `form`, `as_json` and `force`, for `target`."""
    for option in reversed(
        (
            click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file; - is stdout."),
            click.option(
                "--format", "form", type=click.Choice(_FORMS),
                help="[default: by the suffix of -o; else a table on a terminal, jsonl in a pipe]",
            ),
            click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl."),
            click.option("--force", is_flag=True, help="Replace the output file if it exists."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def target(output: Path | None, form: str | None, as_json: bool, force: bool) -> Target:
    """Where the report goes, checked before anything is computed. Raises OptionError or OutputError."""
    if as_json and form not in (None, "jsonl"):
        raise OptionError(f"--json is --format jsonl, not {form}; give one of them")
    form = "jsonl" if as_json else form
    path = settle(output)
    if form is None and path is not None:
        if path.suffix.lower() not in _SUFFIXES:
            raise OptionError(f"{path} does not say its format: end it in .jsonl, .csv or .txt, or give --format")
        form = _SUFFIXES[path.suffix.lower()]
    elif form is None:
        form = "table" if sys.stdout is not None and sys.stdout.isatty() else "jsonl"
    check_target(path, form, resuming=False, force=force)
    return Target(path, form)


def write_report(report: Report, target: Target) -> None:
    """Write it. Raises OutputError."""
    if target.path is None:
        _write(report, target.form, sys.stdout.buffer, to_terminal=sys.stdout.isatty())
        sys.stdout.buffer.flush()
        return
    try:
        with landing(target.path) as stream:
            _write(report, target.form, stream, to_terminal=False)
    except OSError as error:
        raise cannot_write(str(target.path), error) from None


def short(score: float | None) -> np.float32 | None:
    """A score as it is written: the shortest form that reads back to the same float32."""
    return None if score is None or np.isnan(score) else np.float32(score)


def _write(report: Report, form: str, stream: BinaryIO, to_terminal: bool) -> None:
    if form == "jsonl":
        for found in report.objects:
            stream.write(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
    elif form == "csv":
        line = io.StringIO()
        rows = csv.writer(line)
        rows.writerow(report.columns)
        for row in report.rows:
            rows.writerow(row)
            stream.write(line.getvalue().encode("utf-8"))
            line.seek(0)
            line.truncate()
        stream.write(line.getvalue().encode("utf-8"))
    else:
        stream.write(_table(report, to_terminal).encode("utf-8"))


def _table(report: Report, to_terminal: bool) -> str:
    """The rows as columns that fit the terminal's width: texts are cut, numbers never."""
    from rich.cells import cell_len  # knows how wide Chinese is

    columns = list(report.columns if report.shown is None else report.shown)
    places = [list(report.columns).index(column) for column in columns]
    rows_shown = report.rows if report.is_shown is None else filter(report.is_shown, report.rows)
    found = [[row[place] for place in places] for row in rows_shown]
    is_text = [any(isinstance(row[place], str) for row in found) for place in range(len(columns))]
    rows = [columns, *([_cell(cell) for cell in row] for row in found)]
    widths = [max(cell_len(row[place]) for row in rows) for place in range(len(columns))]
    room = (shutil.get_terminal_size((_WIDTH, 24)).columns if to_terminal else _WIDTH) - 2 * (len(columns) - 1)
    widths = _narrowed(widths, is_text, room)
    lines = (
        "  ".join(
            _fitted(cell, width, text, ends=column in _PLACES)
            for cell, width, text, column in zip(row, widths, is_text, columns, strict=True)
        ).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def _narrowed(widths: Sequence[int], is_text: Sequence[bool], room: int) -> list[int]:
    """The widths with those of texts cut to what numbers leave: the widest first, down to the next."""
    found = list(widths)
    while sum(found) > room:
        widest = max((width for width, text in zip(found, is_text, strict=True) if text), default=0)
        if widest <= _TEXT_WIDTH_MIN:
            break
        found[max(place for place, text in enumerate(is_text) if text and found[place] == widest)] -= 1
    return found


def _fitted(cell: str, width: int, is_text: bool, ends: bool) -> str:
    """The cell in its width. Of an id that is too long the end says most, of a text the beginning."""
    from rich.cells import cell_len, set_cell_size

    if not is_text:
        return " " * (width - cell_len(cell)) + cell
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    if not ends:
        return set_cell_size(cell, width - 1) + "…"
    while cell_len(cell) > width - 1:
        cell = cell[1:]
    return set_cell_size("…" + cell, width)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.4f}"
    return visible(shortened(value)) if isinstance(value, str) else f"{value:,}"
