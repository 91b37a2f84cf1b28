"""The options that say how texts lie in the inputs, the same for `embed` and all jobs."""

from __future__ import annotations

import functools
from typing import Any

import click

from q3e_local.cli.option_groups import Command, group
from q3e_local.cli.texts.layout import Layout, delimiter_of, encoding_of

_OPTIONS = group(
    click.option("--lines", is_flag=True, help="Each non-blank line of a file is a text."),
    click.option("--jsonl", metavar="FIELD", help="Each line is a JSON object with the text in FIELD."),
    click.option(
        "--csv", "--column", "column", metavar="COLUMN",
        help="Each row of a table has its text in COLUMN: CSV, TSV, .parquet, .xlsx.",
    ),
    click.option("--id", "id_field", metavar="FIELD", help="Take ids from this field of --jsonl or --csv."),
    click.option(
        "--delimiter", metavar="CHARACTER",
        help="Between the values of --csv: a character, or tab, comma, semicolon, pipe. [default: found]",
    ),
    click.option("--sheet", metavar="NAME", help="The sheet of an Excel workbook. [default: the first]"),
    click.option(
        "--encoding", metavar="NAME",
        help="Of all files of text, such as gbk. [default: UTF-8, or what the bytes show]",
    ),
)  # fmt: skip


def layout_options(command: Command) -> Command:
    """Give a command the parameter `layout`."""

    @functools.wraps(command)
    def wrapped(
        *arguments: Any, lines: bool, jsonl: str | None, column: str | None, id_field: str | None,
        delimiter: str | None, sheet: str | None, encoding: str | None, **options: Any,
    ) -> Any:  # fmt: skip
        layout = Layout(
            lines, jsonl, column, id_field,
            delimiter=None if delimiter is None else delimiter_of(delimiter),
            sheet=sheet,
            encoding=None if encoding is None else encoding_of(encoding),
        )  # fmt: skip
        return command(*arguments, layout=layout, **options)

    return _OPTIONS(wrapped)
