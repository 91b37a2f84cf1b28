"""How a job's result is written: a table on a terminal, JSON Lines in a pipe, CSV with --format csv.

Knows rows and objects, nothing of what they mean. A file lands whole.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from q3e_local.cli.option_groups import as_one, group
from q3e_local.cli.writing.outputs import check_target, choose_format, settle, stream_to
from q3e_local.cli.writing.show import PLAIN_WIDTH, columns, csv_line
from q3e_local.errors import OptionError
from q3e_local.wording.html_table import shortened

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".txt": "table"}
_PATHS = ("id", "source", "first", "last")  # columns of a table
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
    """Where a report goes, None for stdout, and in which form. `is_chosen`: the user named the form."""

    path: Path | None
    form: str
    is_chosen: bool


def _target(output: Path | None, form: str | None, as_json: bool, force: bool, as_csv: bool = False) -> Target:
    """Where the report goes, checked before anything is computed. Raises OptionError or OutputError."""
    named = form
    for is_given, flag, meant in ((as_json, "--json", "jsonl"), (as_csv, "--csv", "csv")):
        if is_given and named not in (None, meant):
            raise OptionError(f"{flag} is --format {meant}, not {named}; give one of them")
        named = meant if is_given else named
    form = choose_format(named, output, _SUFFIXES)
    path = settle(output)
    check_target(path, form, resuming=False, force=force)
    return Target(path, form, named is not None)


# Give a command the parameter `target`.
report_options = group(
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file; - is stdout."),
    click.option(
        "--format", "form", type=click.Choice(_FORMS),
        help="[default: by the suffix of -o; else a table on a terminal, jsonl in a pipe]",
    ),
    click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl."),
    click.option("--force", is_flag=True, help="Replace the output file if it exists."),
    as_one(_target, "target"),
)  # fmt: skip

# For commands whose inputs have no --csv COLUMN: stands before `report_options`.
csv_option = click.option("--csv", "as_csv", is_flag=True, help="The same as --format csv.")


def write_report(report: Report, target: Target) -> None:
    """Write the report. Raises OutputError."""
    with stream_to(target.path) as stream:
        if target.form == "jsonl":
            for found in report.objects:
                stream.write(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        elif target.form == "csv":
            for row in chain([report.columns], report.rows):
                stream.write(csv_line(row))
        else:
            to_terminal = target.path is None and sys.stdout.isatty()
            stream.write(_table(report, to_terminal).encode("utf-8"))


def short(score: float | None) -> np.float32 | None:
    """A score as it is written: the shortest form that reads back to the same float32."""
    return None if score is None or np.isnan(score) else np.float32(score)


def _table(report: Report, to_terminal: bool) -> str:
    """The rows as columns that fit the terminal's width: texts are cut, numbers never."""
    headings = list(report.columns if report.shown is None else report.shown)
    places = [list(report.columns).index(heading) for heading in headings]
    rows = report.rows if report.is_shown is None else filter(report.is_shown, report.rows)
    values = ([row[place] for place in places] for row in rows)
    cells = [[shortened(value) if isinstance(value, str) else value for value in row] for row in values]
    width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if to_terminal else PLAIN_WIDTH
    return "".join(f"{line}\n" for line in columns(headings, cells, width=width, keep_end=_PATHS))
