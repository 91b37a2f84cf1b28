"""`q3e-local inspect`: what a vector is like, and what the model saw of a text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from q3e_local import jobs
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.exit_codes import DONE
from q3e_local.cli.jobs.collecting import check_used, embed
from q3e_local.cli.jobs.collection import end, read_texts
from q3e_local.cli.jobs.options import Embedding, Reading, inputs_argument, job_options
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.texts import Layout
from q3e_local.cli.texts.given_vectors import open_npy, row_facts
from q3e_local.cli.writing.show import print_json, visible
from q3e_local.errors import InputError, OptionError

_BAR = 40  # characters of the longest
_TOKENS_AT_MOST = 200  # for people; JSON has all


@click.command(cls=ModelCommand)
@inputs_argument
@click.option("--row", type=click.IntRange(0), help="Which row of a .npy, counted from 0. [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each text.")
@job_options
def inspect(row: int | None, as_json: bool, reading: Reading, embedding: Embedding) -> int:
    """Show a vector's norm, mean, spread and histogram, and the tokens of its text as the model saw them.

    Pieces of tokens are written as Python writes them, so that spaces and parts of characters show; the end token is
    last. Of a .npy, the row as it lies in the file.

    \b
      q3e-local inspect --text "预算获得批准"
      q3e-local inspect vectors.npy --row 3
    """
    from q3e_local.embedding.embedder import Embedder

    npy = next((name for name in reading.names if Path(name).suffix.lower() == ".npy"), None)
    if npy is None and row is not None:
        raise OptionError("--row is for a .npy")
    with stopping_cleanly():
        if npy is not None:
            _check_alone(npy, reading, embedding)
            _show_row(Path(npy), row or 0, as_json)
            return DONE
        if reading.with_vectors:
            raise OptionError(
                f"inspect takes texts or a .npy, not {reading.with_vectors[0]}; q3e-local index export makes one"
            )
        read = read_texts(reading, embedding.quiet)
        with embedding.loaded() as embedder:
            found = embed(read, reading.skip, embedder, embedding)
            for each, vector in zip(found.rows, found.vectors, strict=True):
                # A server's tokens are its own: its routes give them.
                seen = jobs.seen(embedder, each.text, embedding.request) if isinstance(embedder, Embedder) else None
                _show(each.id, jobs.inspect(vector), found.space, seen, as_json)
    return end(found)


def _check_alone(npy: str, reading: Reading, embedding: Embedding) -> None:
    """Raise OptionError for what says nothing about a row that lies in a file."""
    if len(reading.names) > 1 or reading.texts:
        raise OptionError(f"inspect {npy} by itself: there is no model in it")
    if embedding.dim is not None:
        raise OptionError(f"inspect shows a row of {npy} as it is: leave out --dimensions")
    if reading.layout != Layout() or reading.glob is not None:
        raise OptionError(f"{npy} has vectors: leave out --lines and the like")
    check_used(embedding, reading)


def _show_row(path: Path, row: int, as_json: bool) -> None:
    raw = open_npy(path)
    if row >= len(raw):
        raise OptionError(f"--row must be between 0 and {len(raw) - 1} for {path}, got {row}")
    facts = row_facts(path, len(raw))
    numbers = np.array(raw[row], np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"row {row} of {path} has NaN or infinity in it")
    _show(facts.name(row), jobs.inspect(numbers), facts.space, None, as_json)


def _show(name: str, facts: jobs.Inspection, space: str | None, seen: jobs.Seen | None, as_json: bool) -> None:
    """Show a vector, and the tokens of its text, where that is known."""
    if as_json or not sys.stdout.isatty():
        print_json({"id": name, "space": space} | _fields(facts, seen))
        return
    click.echo("\n".join(_lines(name, facts, space, seen)))


def _fields(facts: jobs.Inspection, seen: jobs.Seen | None) -> dict[str, Any]:
    fields = vars(facts).copy()
    fields["histogram"] = {name: fields.pop(name) for name in ("edges", "counts")}
    if seen is not None:
        fields |= {
            "text": seen.text,
            "renormalized": seen.is_renormalized,
            "n_left_out": seen.n_left_out,
            "tokens": [{"id": token.id, "piece": token.piece} for token in seen.tokens],
        }
    return fields


def _lines(name: str, facts: jobs.Inspection, space: str | None, seen: jobs.Seen | None) -> Iterator[str]:
    yield visible(name)
    if seen is not None:
        yield from _token_lines(seen)
    yield f"  dim {facts.dim}, norm {facts.norm:.4f}, mean {facts.mean:+.5f}, spread {facts.spread:.5f}"
    yield f"  from {facts.lowest:+.4f} to {facts.highest:+.4f}" + (f", space {space}" if space else "")
    most = max(facts.counts)
    for low, high, count in zip(facts.edges, facts.edges[1:], facts.counts, strict=False):
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        yield f"  {low:+.4f} {high:+.4f} {count:>6,} {bar}".rstrip()


def _token_lines(seen: jobs.Seen) -> Iterator[str]:
    n_tokens = len(seen.tokens)
    yield f"  {n_tokens:,} tokens" + (f", {seen.n_left_out:,} more left out" if seen.n_left_out else "")
    if seen.is_renormalized:
        yield "  the text was normalized to NFC: the model saw other characters than are in it"
    shown = [*seen.tokens[:_TOKENS_AT_MOST], *([] if n_tokens <= _TOKENS_AT_MOST else seen.tokens[-1:])]
    line = "   "
    for place, token in enumerate(shown):
        if place == _TOKENS_AT_MOST:
            line += f" … {n_tokens - len(shown):,} more …"
        part = f" {token.id}{visible(repr(token.piece))}"
        if len(line) + len(part) > 100:
            yield line
            line = "   "
        line += part
    yield line
