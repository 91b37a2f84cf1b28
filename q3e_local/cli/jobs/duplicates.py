"""`q3e-local duplicates`: groups of texts that say nearly the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from q3e_local import jobs
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.jobs.collecting import collect
from q3e_local.cli.jobs.collection import Collection, end
from q3e_local.cli.jobs.options import Embedding, Reading, inputs_argument, job_options, threshold_option
from q3e_local.cli.progress import counter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.writing.report import Report, Target, report_options, short, write_report
from q3e_local.wording.counts import counted


@click.command(cls=ModelCommand)
@inputs_argument
@threshold_option(0.95, "Texts at this score or above it are near-duplicates.")
@job_options
@report_options
def duplicates(threshold: float, reading: Reading, embedding: Embedding, target: Target) -> int:
    """Find groups of near-duplicates. Texts that are the same to the letter are found without comparing vectors.

    A text is in a group if it is near to any other in it, so the lowest score inside a group stands beside it. Kept
    of a group, the representative is nearest to all others. A .npy of `embed` has its vectors; behind it the inputs
    it was made of, for their texts.

    \b
      q3e-local duplicates --lines sentences.txt
      q3e-local duplicates notes/ --threshold 0.9 -o groups.csv
      q3e-local duplicates vectors.npy --lines sentences.txt
    """
    with stopping_cleanly():
        found = collect(reading, embedding, target.path)
        texts = found.texts if found.has_texts else None
        with counter("compare", embedding.quiet) as show:
            groups = jobs.duplicates(found.vectors, threshold, texts, show)
        write_report(_report(found, groups), target)
    return end(found, _summary(groups, found.has_texts), embedding.quiet)


def _report(found: Collection, groups: jobs.Duplicates) -> Report:
    def objects() -> Iterator[dict[str, Any]]:
        for number, group in enumerate(groups.groups, 1):
            members = [
                found.facts(row) | {"score": short(score), "same": same, "truncated": found.is_cut(row)}
                for row, score, same in zip(group.rows, group.scores, group.is_copy, strict=True)
            ]
            yield {
                "group": number,
                "size": len(group.rows),
                "lowest": short(group.lowest),
                "representative": found.rows[group.representative].id,
                "members": members,
            }

    def rows() -> Iterator[list[object]]:
        for number, group in enumerate(groups.groups, 1):
            for row, score in zip(group.rows, group.scores, strict=True):
                kept = "*" if row == group.representative else ""
                yield [number, kept, short(score), short(group.lowest), *found.facts(row).values()]

    return Report(objects(), ["group", "kept", "score", "lowest", "id", "text"], rows())


def _summary(groups: jobs.Duplicates, has_texts: bool) -> str:
    n_same = sum(sum(group.is_copy) - 1 for group in groups.groups)
    same = f", {n_same:,} {'the same to the letter' if has_texts else 'of the same vector'}" if n_same else ""
    n_groups, n_texts = counted(len(groups.groups), "group"), counted(groups.n_rows, "text")
    return f"{n_groups} at {groups.threshold} or above in {n_texts}; {groups.n_redundant:,} could go{same}"
