"""`q3e-local filter-pairs`: the rows of a CSV whose two texts agree.

Reads, embeds and writes as it goes. Rows come out as they lie in the file, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from q3e_local import jobs
from q3e_local.cli import candidates
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.exit_codes import DONE
from q3e_local.cli.jobs.options import Embedding, embedding_options, threshold_option
from q3e_local.cli.progress import Meter, meter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.texts import STDIN
from q3e_local.cli.texts.given_vectors import open_npy, row_facts, scaled
from q3e_local.cli.texts.layout import delimiter_option, encoding_option
from q3e_local.cli.texts.raw_csv import RawCsv, open_csv
from q3e_local.cli.writing.outputs import check_target, settle, stream_to
from q3e_local.embedding.request import DIM_MIN, EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.reading.records.delimited import Row
from q3e_local.space import comparable
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

_BINS = 200  # of the scores from -1 to 1
_QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}


@dataclass
class _Tally:
    """What a run did, for the line at its end. Scores are only counted in bins: there may be millions."""

    n_rows: int = 0
    n_kept: int = 0
    n_without_text: int = 0
    n_cut: int = 0
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def score(self, score: float) -> None:
        self.bins[min(_BINS - 1, max(0, int((score + 1) / 2 * _BINS)))] += 1

    def quantile(self, part: float) -> float:
        place = int(np.searchsorted(np.cumsum(self.bins), part * self.bins.sum()))
        return (place + 0.5) / _BINS * 2 - 1


@click.command("filter-pairs", cls=ModelCommand)
@click.argument("name", metavar="CSV", shell_complete=candidates.file)
@click.argument("columns", metavar="COLUMN [COLUMN]", nargs=-1, required=True)
@click.option(
    "--vectors", type=click.Path(path_type=Path), metavar="NPY",
    help="Compare one column with these instead: row 1 with the first, and so on.",
)  # fmt: skip
@threshold_option(0.7, "Keep rows at this score or above it.")
@delimiter_option
@encoding_option
@click.option("--score", "score_column", metavar="COLUMN", help="Add the score as a column of this name.")
@click.option("--dropped", type=click.Path(path_type=Path), metavar="FILE", help="Write the other rows to this file.")
@embedding_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file; - is stdout.")
@click.option("--force", is_flag=True, help="Replace the output files if they exist.")
def filter_pairs(
    name: str, columns: tuple[str, ...], vectors: Path | None, threshold: float, delimiter: str | None,
    encoding: str | None, score_column: str | None, dropped: Path | None, embedding: Embedding, output: Path | None,
    force: bool,
) -> int:  # fmt: skip
    """Keep the rows of a CSV whose two text columns agree, such as a sentence and its translation.

    The rows come out as they are, quotes and line ends too. Rows that lack a text agree with nothing. A .tsv is
    separated by tabs; - is stdin. For translations --task bitext is the instruction of the model's authors.

    \b
      q3e-local filter-pairs pairs.csv zh en --task bitext -o kept.csv
      q3e-local filter-pairs clips.csv transcript --vectors clips.npy > kept.csv
    """
    if len(columns) + (vectors is not None) != 2:
        raise OptionError("give two columns to compare, or one and --vectors")
    path, dropped_path = settle(output), settle(dropped)
    if dropped is not None and dropped_path is None:
        raise OptionError("--dropped needs a file")
    if path is not None and dropped_path is not None and path.resolve() == dropped_path.resolve():
        raise OptionError("-o and --dropped are the same file")
    for each in (path, dropped_path) if dropped_path is not None else (path,):
        check_target(each, "csv", resuming=False, force=force)
        if each is not None and name != STDIN and each.resolve() == Path(name).resolve():
            raise OptionError(f"{name} is the output too; write to another file")
    tally = _Tally()
    with stopping_cleanly(), ExitStack() as stack:
        rows = stack.enter_context(open_csv(name, columns, delimiter, encoding))
        if score_column is not None and score_column in rows.first.cells:
            raise OptionError(f"{name} has a column {score_column!r} already; give --score another name")
        embedder = stack.enter_context(embedding.loaded())  # before anything is opened, or shown
        npy = None if vectors is None else _NpyRows(vectors, embedder, embedding.request)
        show = stack.enter_context(meter("row", None, rows.size_bytes, embedding.quiet))
        kept = stack.enter_context(stream_to(path))
        others = None if dropped_path is None else stack.enter_context(stream_to(dropped_path))
        for stream in (kept, others):
            if stream is not None:
                stream.write(rows.written(rows.first, score_column))

        def give(row: Row, score: float | None, is_kept: bool) -> None:
            tally.n_kept += is_kept
            stream = kept if is_kept else others
            shown = "" if score is None else str(np.float32(score))
            if stream is not None:
                stream.write(rows.written(row, None if score_column is None else shown))

        _score(rows, npy, embedder, embedding.request, threshold, tally, show, give)
    if not embedding.quiet:
        _say(tally, threshold, rows, rows.opened.encoding != (encoding or "utf-8"))
    return DONE


class _NpyRows:
    """The vectors that rows of the CSV are compared with, read as they are needed. Raises what cannot be compared."""

    def __init__(self, path: Path, embedder: TextModel, request: EmbedRequest) -> None:
        self._path, self._raw = path, open_npy(path)
        self.n_rows, width = self._raw.shape
        dim, facts = embedder.dim(request), row_facts(path, self.n_rows)
        self.blank = facts.blank
        if width != dim:
            way = f"; give -d {width}" if DIM_MIN <= width < dim else ""
            raise OptionError(f"{path} has vectors of dim {width}, {embedder.model} gives {dim}{way}")
        if facts.space is not None and not comparable(facts.space, embedder.space(request)):
            raise OptionError(f"{path} is of the space {facts.space}: not of {embedder.model} as it is now")
        left_out = next((row for row, index in enumerate(facts.indices) if row != index), None)
        if left_out is not None:
            raise InputError(
                f"texts were skipped when {path} was made, the first before its row {left_out}: not aligned"
            )

    def vector(self, row: int) -> Vectors:
        """That of a row (1, dim)."""
        if row >= self.n_rows:
            raise InputError(f"{self._path} has {self.n_rows:,} rows, the CSV has more")
        return scaled(self._path, self._raw[row : row + 1].astype(np.float32), np.array([row]), None)


def _score(
    rows: RawCsv, npy: _NpyRows | None, embedder: TextModel, request: EmbedRequest, threshold: float, tally: _Tally,
    show: Meter, give: Callable[[Row, float | None, bool], None],
) -> None:  # fmt: skip
    """Give out each row, in order, with its score, and whether it is kept; None where it lacks a text."""
    waiting: deque[tuple[int, Row, bool]] = deque()  # read, and not yet given out; and whether it has its texts

    def wanted() -> Iterator[str]:
        for row in rows.rows():
            texts = rows.texts(row)
            has_texts = all(text.strip() for text in texts) and (npy is None or tally.n_rows not in npy.blank)
            tally.n_without_text += not has_texts
            if not has_texts:
                show.skipped(row.n_bytes)
            if has_texts or waiting:
                waiting.append((tally.n_rows, row, has_texts))
            else:  # there may be millions in a row
                give(row, None, False)
            tally.n_rows += 1
            if has_texts:
                yield from texts

    results = embedder.stream(replace(request, texts=wanted()), show.computed)
    for first in results:
        number, row, _ = waiting.popleft()
        embedded = []
        for result in [first] if npy is not None else [first, next(results)]:
            if isinstance(result, TextError):
                raise InputError(f"{rows.name}:{row.line} {result.message}")
            embedded.append(result)
        tally.n_cut += any(result.truncated for result in embedded)
        other = embedded[1].vector[np.newaxis] if npy is None else npy.vector(number)
        pair = jobs.filter_pairs(embedded[0].vector[np.newaxis], other, threshold)
        score = float(pair.scores[0])
        tally.score(score)
        give(row, score, bool(pair.kept[0]))
        is_cached = all(result.cached for result in embedded)
        show.kept(row.n_bytes, sum(result.prompt_tokens for result in embedded), cached=is_cached)
        while waiting and not waiting[0][2]:
            give(waiting.popleft()[1], None, False)
    if npy is not None and npy.n_rows != tally.n_rows:
        raise InputError(f"the vectors have {npy.n_rows:,} rows, {rows.name} has {tally.n_rows:,}")


def _say(tally: _Tally, threshold: float, rows: RawCsv, is_other_encoding: bool) -> None:
    if is_other_encoding:
        click.echo(f"{rows.name} was read and written as {rows.opened.shown}, not UTF-8", err=True)
    without = f", {tally.n_without_text:,} without text" if tally.n_without_text else ""
    cut = f", {counted(tally.n_cut, 'row')} with a text cut to the limit" if tally.n_cut else ""
    click.echo(
        f"{tally.n_kept:,} of {counted(tally.n_rows, 'row')} kept at {threshold} or above{without}{cut}", err=True
    )
    if tally.bins.any():
        parts = ", ".join(f"{name} {tally.quantile(part):.2f}" for name, part in _QUANTILES.items())
        click.echo(f"scores: {parts}", err=True)
