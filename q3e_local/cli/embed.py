"""`q3e-local embed`: inputs to outputs through the library."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import numpy as np

from q3e_local.cli import DONE, SKIPPED, candidates, inputs
from q3e_local.cli.computing import check_request, computing
from q3e_local.cli.engine_options import EngineOptions, ModelCommand, engine_options, explained, model_option
from q3e_local.cli.formats import FORMATS, RESUMABLE
from q3e_local.cli.inputs import Item, Layout, Source, layout_options
from q3e_local.cli.inputs.source import Tell
from q3e_local.cli.inputs.survey import advice
from q3e_local.cli.loading import check_dim
from q3e_local.cli.outputs import Output, check_target, choose_format, open_output, settle
from q3e_local.cli.progress import Meter, meter
from q3e_local.cli.record import About, Record, check_form, kept_names, text_digest
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.embedder import Embedder
from q3e_local.errors import InputError, OutputError, TextError
from q3e_local.prompts import TASKS, Kind
from q3e_local.request import Embedded, EmbedRequest
from q3e_local.space import is_plain
from q3e_local.vectors import DTYPES, Dtype

if TYPE_CHECKING:
    from q3e_local.remote.embedder import RemoteEmbedder

_NAMED_AT_MOST = 5
_SKIPPED_AT_MOST = 100
_RECORDS = dict.fromkeys((".csv", ".tsv"), "--csv COLUMN") | dict.fromkeys((".jsonl", ".ndjson"), "--jsonl FIELD")
_LARGE_BYTES = 64 << 20  # records beyond this take some seconds to check

Blank = Literal["zeros", "skip", "error"]


@dataclass
class _Tally:
    """What a run did, for the lines at its end."""

    n_texts: int = 0
    n_tokens: int = 0
    n_done_before: int = 0
    n_cached: int = 0
    n_cached_tokens: int = 0
    cut: list[str] = field(default_factory=list)
    n_cut: int = 0
    n_blank: int = 0
    skipped: dict[int, str] = field(default_factory=dict)  # by index: reading runs ahead of embedding

    def add(self, name: str, result: Embedded) -> None:
        self.n_texts += 1
        self.n_tokens += result.prompt_tokens
        if result.cached:
            self.n_cached += 1
            self.n_cached_tokens += result.prompt_tokens
        if result.truncated:
            self.n_cut += 1
            if len(self.cut) < _NAMED_AT_MOST:
                self.cut.append(name)


@click.command(cls=ModelCommand)
@click.argument("inputs_", metavar="[FILE|FOLDER|-]...", nargs=-1, shell_complete=candidates.file)
@click.option("--text", "texts", metavar="TEXT", multiple=True, help="Embed this text; may be repeated.")
@layout_options
@click.option(
    "--keep", metavar="FIELD,...", multiple=True,
    help="Fields of --jsonl or columns of --csv that go out with each embedding.",
)  # fmt: skip
@click.option(
    "--blank", type=click.Choice(["zeros", "skip", "error"]),
    help="A text that is blank: a row of zeros, so that rows keep their numbers; left out; or an error. "
    "[default: error]",
)  # fmt: skip
@click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '*.md'. [default: all]")
@model_option
@click.option("-d", "--dimensions", type=int, help="Numbers in a vector, 32 up to the model's own. [default: all]")
@click.option(
    "--as", "kind", type=click.Choice(["document", "query"]),
    help="A query gets the instruction before it. [default: what the model's name says, else document]",
)  # fmt: skip
@click.option("--task", type=click.Choice(list(TASKS)), help="A named instruction. [default: retrieval]")
@click.option("--instruction", metavar="TEXT", help="An instruction of your own, best in English.")
@click.option(
    "--max-tokens", type=click.IntRange(1), help="A lower limit for a text than the model's own, end token included."
)
@click.option(
    "--too-long", type=click.Choice(["truncate", "error"]), default="truncate", show_default=True,
    help="What to do with a text above the limit.",
)  # fmt: skip
@engine_options
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Form of the numbers.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)),
    help="[default: by the suffix of -o; else a table on a terminal, jsonl in a pipe]",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file; - is stdout.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a .jsonl or .npy output where it stopped; give the same inputs in the same order.",
)
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@click.option("--offline", is_flag=True, help="Pull nothing if the model is missing.")
@click.option(
    "--cache/--no-cache", "cache", default=None,
    help="Keep vectors for the next time, and use those kept: q3e-local cache. [env: Q3E_CACHE] [default: cache]",
)  # fmt: skip
@click.option(
    "--server", envvar="Q3E_SERVER", show_envvar=True, metavar="URL",
    help="Let this running server compute, such as http://127.0.0.1:11434.",
)  # fmt: skip
@click.option("--skip-errors", is_flag=True, help="Go on after a text that fails, list it, and exit 3.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def embed(
    inputs_: tuple[str, ...], texts: tuple[str, ...], layout: Layout, keep: tuple[str, ...], blank: Blank | None,
    glob: str | None, model: str, dimensions: int | None, kind: Kind | None, task: str | None,
    instruction: str | None, max_tokens: int | None, too_long: str, engine: EngineOptions, dtype: Dtype,
    form: str | None, output: Path | None, resume: bool, force: bool, skip_errors: bool, offline: bool,
    cache: bool | None, server: str | None, quiet: bool,
) -> int:  # fmt: skip
    """Turn texts into embeddings.

    A file is one text, unless --lines, --jsonl or --csv says otherwise; a folder is all files in it; - is stdin,
    which is also read when nothing is named and something is piped in. Text is UTF-8, or what it certainly is.

    \b
      q3e-local embed notes.md report.txt -o vectors.npy
      q3e-local embed --lines questions.txt --as query > queries.jsonl
      q3e-local embed --csv text reviews.xlsx --keep label,date -o reviews.parquet
      q3e-local embed --text "What did we decide?" --as query -d 256
    """
    # A blank line is no text, unless its row is asked for.
    layout = replace(layout, keep=kept_names(keep), blank_lines=layout.lines and blank in ("zeros", "error"))
    form = choose_format(form, None if output == Path("-") else output)  # a link's own name says it
    output = settle(output)
    source = inputs.find(inputs_, texts, glob, layout, leave_out=output)
    check_form(form, layout.keep, blank == "zeros", dtype)
    check_target(output, form, resume, force)
    if not server:
        check_dim(model, dimensions)

    _hint_at_records(source, layout, quiet)
    tally = _Tally()
    n_bytes = source.n_bytes()
    tell = _say if not quiet else _mute
    if n_bytes is not None and n_bytes > _LARGE_BYTES and not layout.is_whole:
        tell("checking the records before the model is loaded")
    inputs.check(source, True, blank in (None, "error"), skip_errors, tell)
    kept_types = source.kept_types() if form == "parquet" else dict.fromkeys(layout.keep)
    with (
        stopping_cleanly(),
        explained(engine),
        computing(model, server, offline, quiet, cache, engine, n_bytes) as embedder,
    ):
        started = time.perf_counter()
        request = EmbedRequest((), kind, task, instruction, dimensions, too_long == "truncate", max_tokens)
        check_request(embedder, request)
        about = About(
            embedder.model, embedder.space(request), embedder.dim(request), dtype, kept_types, blank == "zeros"
        )
        _hint_at_task(request, about, quiet)
        with open_output(output, form, about, resume) as out, meter(n_bytes, quiet) as show:
            try:
                _run(source, embedder, request, out, show, tally, skip_errors, blank, tell, about.dim)
            except BaseException:
                if output is not None and out.n_written:
                    _say_what_is_kept(output, form, len(out.done) + out.n_written, skip_errors)
                raise
        seconds = time.perf_counter() - started
    _report(about, tally, seconds, quiet)
    return SKIPPED if tally.skipped else DONE


def _run(
    source: Source,
    embedder: Embedder | RemoteEmbedder,
    request: EmbedRequest,
    out: Output,
    show: Meter,
    tally: _Tally,
    skip: bool,
    blank: Blank | None,
    tell: Tell,
    dim: int,
) -> None:
    """Read, embed and write text by text. Raises the first error once all texts before it are written."""
    given: deque[tuple[int, Item]] = deque()  # not yet written: with the embedder, or with a problem and for zeros
    n_bytes = 0
    failure: InputError | None = None
    last_done = max(out.done, default=-1)

    def wanted() -> Iterator[str]:
        nonlocal n_bytes, failure
        items = source.read(tell)
        for index, item in enumerate(items):
            n_bytes += item.n_bytes
            if index in out.done:
                _check_same(index, item, *out.done[index])
                tally.n_done_before += 1
                continue
            if blank == "zeros" and index < last_done:
                raise OutputError(f"the output has no row for {item.id}: it was begun without --blank zeros")
            is_excused = item.is_blank and blank in ("zeros", "skip")
            if item.problem is None:
                given.append((index, item))
                yield item.text
            elif not (skip or is_excused):
                has_others = bool(tally.n_texts or given or out.done) or any(one.problem is None for one in items)
                failure = InputError(f"{item.id} {item.problem}{advice([item], has_others, True)}")
                return
            else:
                if is_excused:
                    tally.n_blank += 1
                else:
                    tally.skipped[index] = f"{item.id} {item.problem}"
                if blank == "zeros":
                    given.append((index, item))
                    write_zeros()

    def write_zeros() -> None:
        """Write the rows of zeros that no text stands before."""
        while given and given[0][1].problem is not None:
            write_row_of_zeros(*given.popleft())

    def write_row_of_zeros(index: int, item: Item) -> None:
        out.write(Record(index, item.id, item.text, 0, False, np.zeros(dim, np.float32), item.kept, blank=True))

    for result in embedder.stream(replace(request, texts=wanted()), lambda *done: show(n_bytes, *done)):
        index, item = given.popleft()
        if isinstance(result, TextError):
            if not skip:
                raise InputError(f"{item.id} {result.message}")
            tally.skipped[index] = f"{item.id} {result.message}"
            if blank == "zeros":
                write_row_of_zeros(index, item)
        else:
            record = Record(
                index, item.id, item.text, result.prompt_tokens, result.truncated, result.vector, item.kept
            )
            out.write(record)
            tally.add(item.id, result)
        write_zeros()
    if failure is not None:
        raise failure
    if not (tally.n_texts or tally.n_done_before or tally.skipped):
        raise InputError("there are no texts in the input" + (": all of them are blank" if tally.n_blank else ""))


def _check_same(index: int, item: Item, name: str, digest: str) -> None:
    """Refuse to go on with an output that is of other texts. Raises OutputError."""
    if item.id != name:
        raise OutputError(
            f"the inputs are not those of the output: text {index} is {item.id}, it was {name}; write to a new file"
        )
    if (item.problem is None or item.is_blank) and text_digest(item.text) != digest:
        raise OutputError(
            f"{item.id} is not the text it was when the output was begun (edited, or another field or column); "
            "write to a new file"
        )


def _say_what_is_kept(output: Path, form: str, n_texts: int, skip: bool) -> None:
    """After a run that did not end well: how to go on, or that nothing is left of it."""
    if form in RESUMABLE:
        texts = "1 text is" if n_texts == 1 else f"{n_texts:,} texts are"
        _say(f"{texts} in {output}; go on with --resume{' --skip-errors' if skip else ''}")
    else:
        texts = "1 text" if n_texts == 1 else f"{n_texts:,} texts"
        _say(f"nothing is kept of {texts}: only .jsonl and .npy outputs can be resumed")


def _hint_at_records(source: Source, layout: Layout, quiet: bool) -> None:
    """What a person may not have meant."""
    if quiet or not layout.is_whole:
        return
    for path in source.paths:
        option = _RECORDS.get(path.suffix.lower()) if path is not None else None
        if option is not None:
            _say(f"{path} is embedded as one text; for its records give {option}")
            return


def _hint_at_task(request: EmbedRequest, about: About, quiet: bool) -> None:
    """The same of a task that leaves the texts as they are."""
    if not quiet and request.task is not None and is_plain(about.space):
        _say(f"--task {request.task} is for queries: documents stand bare; for queries add --as query")


def _report(about: About, tally: _Tally, seconds: float, quiet: bool) -> None:
    if not quiet:
        before = f" ({tally.n_done_before:,} were there already)" if tally.n_done_before else ""
        cached = f" ({tally.n_cached:,} from the cache)" if tally.n_cached else ""
        texts = "1 text" if tally.n_texts == 1 else f"{tally.n_texts:,} texts"
        n_computed = tally.n_tokens - tally.n_cached_tokens
        others = ", the others at" if tally.n_cached else ":"
        rate = f"{others} {n_computed / seconds:,.0f} tokens/s" if n_computed and seconds else ""
        taken = f" in {seconds:.1f} s{rate}" if tally.n_tokens and seconds else ""
        _say(f"{texts}{before}{cached}, {tally.n_tokens:,} tokens{taken}")
        _say(f"model {about.model}, dim {about.dim}, space {about.space}")
        if tally.n_blank:
            texts = "1 blank text" if tally.n_blank == 1 else f"{tally.n_blank:,} blank texts"
            _say(f"{texts} {'embedded as zeros' if about.has_zeros else 'left out'}")
    if tally.n_cut:
        more = f" and {tally.n_cut - len(tally.cut)} more" if tally.n_cut > len(tally.cut) else ""
        texts = "1 text" if tally.n_cut == 1 else f"{tally.n_cut:,} texts"
        _say(f"{texts} cut to the limit: {', '.join(tally.cut)}{more}")
    if tally.skipped:
        _say(f"{len(tally.skipped)} skipped:")
        for index in sorted(tally.skipped)[:_SKIPPED_AT_MOST]:
            _say(f"  {tally.skipped[index]}")
        if len(tally.skipped) > _SKIPPED_AT_MOST:
            _say(f"  and {len(tally.skipped) - _SKIPPED_AT_MOST:,} more")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _mute(line: str) -> None:
    """What a quiet run says."""
