"""`q3e-local cluster`: texts by theme, and the chapters of a transcript."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import click
import numpy as np

from q3e_local import jobs
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.jobs.collecting import collect
from q3e_local.cli.jobs.collection import Collection, Texts, end
from q3e_local.cli.jobs.map_names import cluster_words
from q3e_local.cli.jobs.options import Embedding, Reading, inputs_argument, job_options, need
from q3e_local.cli.progress import Counter, counter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.writing.report import Report, Target, report_options, short, write_report
from q3e_local.errors import OptionError
from q3e_local.wording.counts import counted

_IN_TABLE = 3


@click.command(cls=ModelCommand)
@inputs_argument
@click.option(
    "-k", type=click.IntRange(1), help="How many clusters or chapters. [default: as many as part them well]"
)
@click.option("--chapters", is_flag=True, help="Keep the order: merge consecutive texts of one theme.")
@click.option(
    "--central", type=click.IntRange(1), default=_IN_TABLE, show_default=True,
    help="How many of its most typical texts to show of each.",
)  # fmt: skip
@job_options
@report_options
def cluster(
    k: int | None, chapters: bool, central: int, reading: Reading, embedding: Embedding, target: Target
) -> int:  # fmt: skip
    """Part texts by theme; each cluster with its size, its key words and its most typical texts.

    Without -k the number of clusters is that with the highest silhouette. Clusters need scikit-learn, chapters do
    not. A table has the most typical texts of each, a file all of them. --task clustering puts before every text the
    instruction that the model's authors evaluate clusters with.

    \b
      q3e-local cluster --lines questions.txt --task clustering
      q3e-local cluster --chapters --lines transcript.txt
    """
    with stopping_cleanly():
        if not chapters:
            need("sklearn", "clustering")
        found = collect(reading, embedding, target.path, partial(_check_k, k, chapters))
        with counter("cluster", embedding.quiet) as show:
            report, line = _chapters(found, k, central) if chapters else _clusters(found, k, central, show)
        write_report(report, target)
    return end(found, line, embedding.quiet)


def _check_k(k: int | None, chapters: bool, read: Texts) -> None:
    n_files = len({row.source for row in read.rows})
    if k is not None and chapters and n_files > 1:
        raise OptionError(f"-k is for one transcript, there are {n_files} files; leave it out, or name one")
    (jobs.check_chapters if chapters else jobs.check_clusters)(k, len(read.rows))


def _clusters(found: Collection, k: int | None, n_central: int, show: Counter) -> tuple[Report, str]:
    parted = jobs.cluster(found.vectors, k, found.texts, show)
    words = cluster_words(found, parted)

    def objects() -> Iterator[dict[str, Any]]:
        for number, group in enumerate(parted.clusters, 1):
            yield {
                "cluster": number,
                "size": len(group.rows),
                "words": words[number - 1],
                "score": short(float(np.mean(group.scores))),
                "central": [
                    found.facts(row) | {"score": short(score)}
                    for row, score in zip(group.rows[:n_central], group.scores, strict=False)
                ],
                "members": [
                    found.facts(row) | {"score": short(score), "truncated": found.is_cut(row)}
                    for row, score in sorted(zip(group.rows, group.scores, strict=True))
                ],
            }

    def rows() -> Iterator[list[object]]:
        for number, group in enumerate(parted.clusters, 1):
            for place, (row, score) in enumerate(zip(group.rows, group.scores, strict=True)):
                central = "*" if place < n_central else ""
                named = ", ".join(words[number - 1])
                yield [number, len(group.rows), named, central, short(score), *found.facts(row).values()]

    line = f"{counted(len(parted.clusters), 'cluster')} of {counted(len(found.rows), 'text')}{_chosen(parted)}"
    columns = ["cluster", "size", "words", "central", "score", "id", "text"]
    shown = [column for column in columns if column != "central"]
    return Report(objects(), columns, rows(), shown, lambda row: row[3] == "*"), line


def _chosen(parted: jobs.Clusters) -> str:
    if parted.silhouette is None:
        return ""
    return f": the highest silhouette, {parted.silhouette:.3f}, of {', '.join(str(k) for k, _ in parted.tried)}"


def _chapters(found: Collection, k: int | None, n_central: int) -> tuple[Report, str]:
    """The chapters of each file by itself: no chapter goes on in the next file."""
    of_source: dict[str, list[int]] = {}
    for number, row in enumerate(found.rows):
        of_source.setdefault(row.source, []).append(number)
    parted: list[tuple[str, jobs.Chapter]] = []
    for source, members in of_source.items():
        rows = np.array(members)
        for chapter in jobs.chapters(found.vectors[rows], k).chapters:
            central = tuple(int(rows[row]) for row in chapter.central)
            parted.append(
                (source, jobs.Chapter(int(rows[chapter.first]), int(rows[chapter.last]), central, chapter.score))
            )

    def objects() -> Iterator[dict[str, Any]]:
        for number, (source, chapter) in enumerate(parted, 1):
            first, last = found.rows[chapter.first], found.rows[chapter.last]
            yield {
                "chapter": number,
                "source": source,
                "first_line": first.line,
                "last_line": last.last_line,
                "first": first.id,
                "last": last.id,
                "size": len(chapter.central),
                "score": short(chapter.score),
                "central": [found.facts(row) for row in chapter.central[:n_central]],
            }

    def rows_of() -> Iterator[list[object]]:
        for fields in objects():
            names = ("chapter", "source", "first_line", "last_line", "first", "last", "score")
            yield [*(fields[name] for name in names), " · ".join(text["text"] for text in fields["central"])]

    line = f"{counted(len(parted), 'chapter')} of {counted(len(found.rows), 'text')}"
    columns = ["chapter", "source", "from line", "to line", "first", "last", "score", "central"]
    ends = ["from line", "to line"] if any(row.line is not None for row in found.rows) else ["first", "last"]
    sources = ["source"] if len(of_source) > 1 else []
    return Report(objects(), columns, rows_of(), ["chapter", *sources, *ends, "score", "central"]), line
