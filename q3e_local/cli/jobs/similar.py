"""`q3e-local similar`: how near texts are to each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from q3e_local import jobs
from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.jobs.collecting import collect
from q3e_local.cli.jobs.collection import Collection, end
from q3e_local.cli.jobs.options import Embedding, Reading, has_vectors, job_options
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.texts import STDIN
from q3e_local.cli.writing.report import Report, Target, report_options, short, write_report
from q3e_local.errors import OptionError


@click.command(cls=ModelCommand)
@click.argument("words", metavar="[TEXT]...", nargs=-1, shell_complete=candidates.file)
@click.option(
    "--file", "names", metavar="PATH", multiple=True,
    help="Texts of this file or folder; may be repeated. Of one file alone, or of stdin, the lines.",
)  # fmt: skip
@job_options
@report_options
def similar(words: tuple[str, ...], reading: Reading, embedding: Embedding, target: Target) -> int:
    """Compare texts: the score of two, a matrix of more. 1 is the same, 0 has nothing in common.

    A TEXT that is the path of a file stands for what is in it; --text takes words as they are.

    \b
      q3e-local similar "the budget was approved" "预算获得批准"
      q3e-local similar sentences.txt
      q3e-local similar a.md b.md --task sts
    """
    files = tuple(word for word in words if os.path.isfile(word))  # noqa: PTH113 - never raises, however long a text
    is_plain = reading.layout.is_whole and not any(map(has_vectors, files))  # otherwise files must be meant
    if files and is_plain and not embedding.quiet:
        click.echo(f"comparing what is in {', '.join(files)}; for the words themselves give --text", err=True)
    folders = [word for word in words if os.path.isdir(word)]  # noqa: PTH112
    if folders and not embedding.quiet:
        click.echo(f"{folders[0]} is a folder too; for the texts in it give --file {folders[0]}", err=True)
    texts = (*(word for word in words if word not in files), *reading.texts)
    reading = replace(reading, texts=texts, names=(*files, *reading.names) or _stdin(texts))
    if not texts and len(reading.names) == 1 and _is_one_text(reading.names[0]) and reading.layout.is_whole:
        reading = replace(reading, layout=replace(reading.layout, lines=True))
    with stopping_cleanly():
        found = collect(reading, embedding, target.path, lambda read: jobs.check_matrix(len(read.rows)))
    scores = jobs.similar(found.vectors, found.texts).scores
    if len(found.rows) == 2 and target.path is None and not target.is_chosen:
        click.echo(f"{float(scores[0, 1]):.4f}")
    else:
        write_report(_report(found, scores), target)
    return end(found)


def _report(found: Collection, scores: Any) -> Report:
    def objects() -> Iterator[dict[str, Any]]:
        for row in range(len(found.rows)):
            yield {"index": row, **found.facts(row), "truncated": found.is_cut(row), "scores": scores[row]}

    numbers = [str(row + 1) for row in range(len(found.rows))]
    rows = ([row + 1, text, *map(short, scores[row].tolist())] for row, text in enumerate(found.texts))
    return Report(objects(), ["", "text", *numbers], rows)


def _stdin(texts: Sequence[str]) -> tuple[str, ...]:
    """What is read where nothing is named. Raises OptionError on a terminal."""
    if texts:
        return ()
    if sys.stdin is None or sys.stdin.isatty():
        raise OptionError("nothing to compare: give two texts or more, or --file, or pipe lines in")
    return (STDIN,)


def _is_one_text(name: str) -> bool:
    """Whether there would be one text without --lines, so that its lines must be meant."""
    return name == STDIN or (Path(name).is_file() and not has_vectors(name))
