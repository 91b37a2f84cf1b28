"""How texts lie in the inputs: the options of `embed` and all jobs that say it, and what goes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from q3e_local.cli.option_groups import as_one, group
from q3e_local.errors import OptionError
from q3e_local.reading.encodings import wider
from q3e_local.reading.records import Wanted

STDIN = "-"
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class Layout:
    """How texts lie in a file: at most one of `lines`, `jsonl` and `column`; none means the file is one text."""

    lines: bool = False
    jsonl: str | None = None  # the field that holds the text
    column: str | None = None  # the column of a table that holds the text
    id_field: str | None = None
    keep: tuple[str, ...] = ()  # fields or columns that go out with the embedding
    delimiter: str | None = None  # None: by the table's beginning
    sheet: str | None = None  # None: the first
    encoding: str | None = None  # None: by the file's bytes
    blank_lines: bool = False  # of `lines`: whether a blank line is a text, which is blank

    def __post_init__(self) -> None:
        if sum((self.lines, self.jsonl is not None, self.column is not None)) > 1:
            raise OptionError("--lines, --jsonl and --csv exclude each other")
        if self.id_field is not None and self.wanted is None:
            raise OptionError("--id needs --jsonl or --csv")
        if self.keep and self.wanted is None:
            raise OptionError("--keep needs --jsonl or --csv")
        for option, value in {"--delimiter": self.delimiter, "--sheet": self.sheet}.items():
            if value is not None and self.column is None:
                raise OptionError(f"{option} needs --csv")

    @property
    def is_whole(self) -> bool:
        """Whether a file is one text."""
        return not self.lines and self.wanted is None

    @property
    def wanted(self) -> Wanted | None:
        """The fields of a record that are read; None where there are no records."""
        text = self.column if self.jsonl is None else self.jsonl
        return None if text is None else Wanted(text, self.id_field, self.keep)


def delimiter_of(given: str) -> str:
    """The character that --delimiter means. Raises OptionError."""
    character = _DELIMITERS.get(given.lower(), given)
    if len(character) != 1 or character in '"\r\n':
        raise OptionError(f"--delimiter is one character, or tab, comma, semicolon, pipe or space; got {given!r}")
    return character


def encoding_of(given: str) -> str:
    """The encoding that --encoding names. Raises OptionError for a name that Python does not know."""
    try:
        return wider(given)
    except (LookupError, ValueError):
        raise OptionError(
            f"--encoding {given!r} is no encoding; names are utf-8, gb18030, gbk, big5, "
            "shift_jis, euc-kr, utf-16, cp1252"
        ) from None


def _meaning(of: Callable[[str], str]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    return lambda context, parameter, value: None if value is None else of(value)


delimiter_option = click.option(
    "--delimiter", metavar="CHARACTER", callback=_meaning(delimiter_of),
    help="Between the values of a CSV: a character, or tab, comma, semicolon, pipe. [default: found]",
)  # fmt: skip
encoding_option = click.option(
    "--encoding", metavar="NAME", callback=_meaning(encoding_of),
    help="Of all files of text, such as gbk. [default: UTF-8, or what the bytes show]",
)  # fmt: skip
# Give a command the parameter `layout`.
layout_options = group(
    click.option("--lines", is_flag=True, help="Each non-blank line of a file is a text."),
    click.option("--jsonl", metavar="FIELD", help="Each line is a JSON object with the text in FIELD."),
    click.option(
        "--csv", "--column", "column", metavar="COLUMN",
        help="Each row of a table has its text in COLUMN: CSV, TSV, .parquet, .xlsx.",
    ),
    click.option("--id", "id_field", metavar="FIELD", help="Take ids from this field of --jsonl or --csv."),
    delimiter_option,
    click.option("--sheet", metavar="NAME", help="The sheet of an Excel workbook. [default: the first]"),
    encoding_option,
    as_one(Layout, "layout"),
)  # fmt: skip
