"""`q3e-local cluster`: texts by theme, and the chapters of a transcript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from q3e_local.cli.collection import Collection, Model, collect, tell_skipped
from q3e_local.cli.jobs.asked import Embedding, Reading, embedding_options, inputs_argument, reading_options
from q3e_local.cli.jobs.extra import need
from q3e_local.cli.jobs.report import Report, counted, report_options, short, target, write_report
from q3e_local.cli.progress import Counter, counter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.errors import OptionError
from q3e_local.jobs import Chapter, Clusters

_IN_TABLE = 3


@click.command()
@inputs_argument()
@click.option(
    "-k", type=click.IntRange(1), help="How many clusters or chapters. [default: as many as part them well]"
)
@click.option("--chapters", is_flag=True, help="Keep the order: merge consecutive texts of one theme.")
@click.option(
    "--central", type=click.IntRange(1), default=_IN_TABLE, show_default=True,
    help="How many of its most typical texts to show of each.",
)  # fmt: skip
@reading_options
@embedding_options
@report_options
def cluster(
    k: int | None, chapters: bool, central: int, reading: Reading, embedding: Embedding, output: Path | None,
    form: str | None, as_json: bool, force: bool,
) -> int:  # fmt: skip
    """Part texts by theme; each cluster with its size and its most typical texts.

    Without -k the number of clusters is that with the highest silhouette. Clusters need scikit-learn, chapters do
    not. --task clustering puts before every text the instruction that the model's authors evaluate clusters with.

    \b
      q3e-local cluster --lines questions.txt --task clustering
      q3e-local cluster --chapters --lines transcript.txt
    """
    where = target(output, form, as_json, force)
    with stopping_cleanly():
        if not chapters:
            need("sklearn", "clustering")
        with Model(embedding) as model:
            found = collect(reading, model, n_min=2, leave_out=where.path)
        try:
            with counter("cluster", embedding.quiet) as show:
                report, line = _chapters(found, k, central) if chapters else _clusters(found, k, central, show)
        except OptionError as error:
            raise OptionError(error.under("-k") if error.option == "k" else str(error)) from None
        write_report(report, where)
    if not embedding.quiet:
        click.echo(line, err=True)
    tell_skipped(found)
    return found.code


def _clusters(found: Collection, k: int | None, n_central: int, show: Counter) -> tuple[Report, str]:
    from q3e_local import jobs

    parted = jobs.cluster(found.vectors, k, found.texts, show)

    def objects() -> Iterator[dict[str, Any]]:
        for number, one in enumerate(parted.clusters, 1):
            yield {
                "cluster": number,
                "size": len(one.rows),
                "score": short(float(np.mean(one.scores))),
                "central": [
                    {"id": found.ids[row], "text": found.texts[row], "score": short(score)}
                    for row, score in zip(one.rows[:n_central], one.scores, strict=False)
                ],
                "members": [found.ids[row] for row in sorted(one.rows)],
            }

    def rows() -> Iterator[list[object]]:
        for number, one in enumerate(parted.clusters, 1):
            for row, score in zip(one.rows[:n_central], one.scores, strict=False):
                yield [number, len(one.rows), short(score), found.ids[row], found.texts[row]]

    line = f"{counted(len(parted.clusters), 'cluster')} of {counted(len(found.ids), 'text')}{_chosen(parted)}"
    return Report(objects(), ["cluster", "size", "score", "id", "text"], rows()), line


def _chosen(parted: Clusters) -> str:
    if parted.silhouette is None:
        return ""
    return f": the highest silhouette, {parted.silhouette:.3f}, of {', '.join(str(k) for k, _ in parted.tried)}"


def _chapters(found: Collection, k: int | None, n_central: int) -> tuple[Report, str]:
    """Those of each file: a chapter does not go on in the next one."""
    from q3e_local import jobs

    sources = list(dict.fromkeys(found.sources))
    if k is not None and len(sources) > 1:
        raise OptionError(f"-k is for one transcript, there are {len(sources)} files; leave it out, or name one")
    parted: list[tuple[str, Chapter]] = []
    for source in sources:
        rows = np.array([row for row, one in enumerate(found.sources) if one == source])
        for one in jobs.chapters(found.vectors[rows], k).chapters:
            central = tuple(int(rows[row]) for row in one.central)
            parted.append((source, Chapter(int(rows[one.first]), int(rows[one.last]), central, one.score)))

    def objects() -> Iterator[dict[str, Any]]:
        for number, (source, one) in enumerate(parted, 1):
            yield {
                "chapter": number,
                "source": source,
                "first_line": _line(found.ids[one.first]),
                "last_line": _line(found.ids[one.last]),
                "first": found.ids[one.first],
                "last": found.ids[one.last],
                "size": len(one.central),
                "score": short(one.score),
                "central": [{"id": found.ids[row], "text": found.texts[row]} for row in one.central[:n_central]],
            }

    def rows_of() -> Iterator[list[object]]:
        for number, (_, one) in enumerate(parted, 1):
            lines = [_line(found.ids[row]) or row + 1 for row in (one.first, one.last)]
            central = " · ".join(found.texts[row] for row in one.central[:n_central])
            yield [number, *lines, short(one.score), central]

    line = f"{counted(len(parted), 'chapter')} of {counted(len(found.ids), 'text')}"
    return Report(objects(), ["chapter", "from line", "to line", "score", "central"], rows_of()), line


def _line(name: str) -> int | None:
    """The line in an id such as `transcript.txt:12`."""
    _, colon, line = name.rpartition(":")
    return int(line) if colon and line.isdecimal() else None
