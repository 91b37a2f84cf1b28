"""`q3e-local match`: each text's nearest in a list of standard phrases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np

from q3e_local import jobs
from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.jobs.collecting import check_used, embedded, gather
from q3e_local.cli.jobs.collection import Collection, check_comparable, end
from q3e_local.cli.jobs.options import Embedding, Reading, has_vectors, job_options, threshold_option
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.texts import Layout
from q3e_local.cli.writing.report import Report, Target, report_options, short, write_report
from q3e_local.errors import OptionError
from q3e_local.wording.counts import counted


@click.command(cls=ModelCommand)
@click.argument(
    "names", metavar="TEXTS", shell_complete=candidates.file, callback=lambda context, parameter, name: (name,)
)
@click.argument("phrases", metavar="PHRASES", shell_complete=candidates.file)
@threshold_option(0.7, "Below this score it is no match.")
@click.option(
    "--top", type=click.IntRange(1), default=1, show_default=True, help="Name this many phrases, best first."
)
@job_options
@report_options
def match(
    phrases: str, threshold: float, top: int, reading: Reading, embedding: Embedding, target: Target
) -> int:  # fmt: skip
    """Find for each line of TEXTS the nearest line of PHRASES, or none: what speech recognition meant to hear.

    The second best phrase and the margin to it say how sure a match is. TEXTS may be - for stdin, records of --jsonl
    or --csv, or like PHRASES a .npy.

    \b
      q3e-local match heard.txt phrases.txt
      q3e-local match heard.txt phrases.txt --threshold 0.8 -o matches.csv
    """
    of_phrases = Reading((phrases,), Layout(lines=not has_vectors(phrases), encoding=reading.layout.encoding))
    if reading.layout.is_whole and not has_vectors(reading.names[0]):
        reading = replace(reading, layout=replace(reading.layout, lines=True))
    if reading.names == of_phrases.names == ("-",):
        raise OptionError("stdin (-) can be read only once")
    with stopping_cleanly():
        both = of_phrases, reading
        check_used(embedding, *both)
        # Both are read before the model is loaded: an input that cannot be read is said at once.
        read = [(gather(source, embedding, target.path), source.skip) for source in both]
        known, found = embedded(embedding, *read)
        check_comparable(found, reading.names[0], known, phrases)
        known = _once(known, embedding.quiet)
        matches = jobs.match(found.vectors, known.vectors, threshold, max(top, 2))
        write_report(_report(found, known, matches, top), target)
    n_texts, n_phrases = counted(len(found.rows), "text"), counted(len(known.rows), "phrase")
    summary = f"{int(matches.is_match.sum()):,} of {n_texts} match one of {n_phrases} at {threshold} or above"
    return end(found, summary, embedding.quiet)


def _once(known: Collection, quiet: bool) -> Collection:
    """The phrases without repetitions: the margin between two equal phrases would always be 0."""
    n = len(known.rows)
    rows = np.flatnonzero(jobs.first_of_each(known.vectors, known.texts if known.has_texts else None) == np.arange(n))
    if len(rows) < n and not quiet:
        click.echo(f"{counted(n - len(rows), 'phrase')} there more than once", err=True)
    return replace(known, rows=tuple(known.rows[row] for row in rows), vectors=known.vectors[rows], cut=None)


def _report(found: Collection, known: Collection, matches: jobs.Matches, top: int) -> Report:
    margin = matches.margin

    def objects() -> Iterator[dict[str, Any]]:
        for row, text in enumerate(found.rows):
            nearest = [
                {"text": known.rows[place].text, "score": score}
                for place, score in zip(matches.nearest[row], matches.scores[row], strict=True)
            ]
            second = nearest[1] if len(nearest) > 1 else {"text": None, "score": None}
            fields: dict[str, Any] = {
                "line": text.line,
                **found.facts(row),
                "match": nearest[0]["text"] if matches.is_match[row] else None,
                "score": nearest[0]["score"],
                "second": second["text"],
                "second_score": second["score"],
                "margin": short(margin[row]),
                "truncated": found.is_cut(row),
            }
            yield fields | {"nearest": nearest} if top > 1 else fields

    def rows() -> Iterator[list[object]]:
        for fields in objects():
            matched = "no match" if fields["match"] is None else fields["match"]
            more = [each[name] for each in fields.get("nearest", ())[2:] for name in ("text", "score")]
            rest = [fields[name] for name in ("score", "second", "second_score", "margin")]
            yield [fields["line"], fields["id"], fields["text"], matched, *rest, *more]

    places = range(3, matches.nearest.shape[1] + 1) if top > 2 else ()
    more = [f"{name} {place}" for place in places for name in ("match", "score")]
    columns = ["line", "id", "text", "match", "score", "second", "second score", "margin", *more]
    place = "line" if all(row.line is not None for row in found.rows) else "id"
    return Report(objects(), columns, rows(), shown=[place, "score", "margin", "text", "match", "second"])
