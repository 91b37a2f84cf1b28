"""`q3e-local embed`: inputs to outputs through the library."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli import DONE, SKIPPED, inputs
from q3e_local.cli.computing import check_request, computing
from q3e_local.cli.engine_options import EngineOptions, engine_options, explained, model_option
from q3e_local.cli.formats import FORMATS, RESUMABLE, About, Record, text_digest
from q3e_local.cli.inputs import Item, Layout, Source
from q3e_local.cli.outputs import Output, check_target, choose_format, open_output, settle
from q3e_local.cli.progress import Meter, meter
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.embedder import Embedder
from q3e_local.errors import InputError, OptionError, OutputError, TextError
from q3e_local.prompts import TASKS, Kind
from q3e_local.request import Embedded, EmbedRequest
from q3e_local.space import is_plain
from q3e_local.vectors import DTYPES, Dtype

if TYPE_CHECKING:
    from q3e_local.remote import RemoteEmbedder

_NAMED_AT_MOST = 5
_SKIPPED_AT_MOST = 100
_RECORDS = {".csv": "--csv COLUMN", ".jsonl": "--jsonl FIELD", ".ndjson": "--jsonl FIELD"}


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


@click.command()
@click.argument("inputs_", metavar="[FILE|FOLDER|-]...", nargs=-1)
@click.option("--text", "texts", metavar="TEXT", multiple=True, help="Embed this text; may be repeated.")
@click.option("--lines", is_flag=True, help="Each non-blank line of a file is a text.")
@click.option("--jsonl", metavar="FIELD", help="Each line is a JSON object with the text in FIELD.")
@click.option("--csv", "csv_column", metavar="COLUMN", help="Each CSV row has its text in COLUMN.")
@click.option("--id", "id_field", metavar="FIELD", help="Take ids from this field of --jsonl or --csv.")
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
    inputs_: tuple[str, ...], texts: tuple[str, ...], lines: bool, jsonl: str | None, csv_column: str | None,
    id_field: str | None, glob: str | None, model: str, dimensions: int | None, kind: Kind | None, task: str | None,
    instruction: str | None, max_tokens: int | None, too_long: str, engine: EngineOptions, dtype: Dtype,
    form: str | None, output: Path | None, resume: bool, force: bool, skip_errors: bool, offline: bool,
    cache: bool | None, server: str | None, quiet: bool,
) -> int:  # fmt: skip
    """Turn texts into embeddings.

    A file is one text, unless --lines, --jsonl or --csv says otherwise; a folder is all files in it; - is stdin,
    which is also read when nothing is named and something is piped in. Text is UTF-8.

    \b
      q3e-local embed notes.md report.txt -o vectors.npy
      q3e-local embed --lines questions.txt --as query > queries.jsonl
      q3e-local embed --text "What did we decide?" --as query -d 256
    """
    layout = Layout(lines, jsonl, csv_column, id_field)
    form = choose_format(form, None if output == Path("-") else output)  # a link's own name says it
    output = settle(output)
    source = inputs.find(inputs_, texts, glob, layout, leave_out=output)
    if form == "table" and dtype != "float32":
        raise OptionError(f"a table shows float32 numbers; give another --format for --dtype {dtype}")
    check_target(output, form, resume, force)

    _hint_at_records(source, layout, quiet)
    tally = _Tally()
    n_bytes = source.n_bytes()
    with (
        stopping_cleanly(),
        explained(engine),
        computing(model, server, offline, quiet, cache, engine) as embedder,
    ):
        started = time.perf_counter()
        request = EmbedRequest((), kind, task, instruction, dimensions, too_long == "truncate", max_tokens)
        check_request(embedder, request)
        about = About(embedder.model, embedder.space(request), embedder.dim(request), dtype)
        _hint_at_task(request, about, quiet)
        with open_output(output, form, about, resume) as out, meter(n_bytes, quiet) as show:
            try:
                _run(source, embedder, request, out, show, tally, skip_errors)
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
) -> None:
    """Read, embed and write text by text. Raises the first error once all texts before it are written."""
    given: deque[tuple[int, Item]] = deque()  # to the embedder, and not yet back
    n_bytes = 0
    failure: InputError | None = None

    def wanted() -> Iterator[str]:
        nonlocal n_bytes, failure
        for index, item in enumerate(source.read()):
            n_bytes += item.n_bytes
            if index in out.done:
                _check_same(index, item, *out.done[index])
                tally.n_done_before += 1
            elif item.problem is None:
                given.append((index, item))
                yield item.text
            elif skip:
                tally.skipped[index] = f"{item.id} {item.problem}"
            else:
                failure = InputError(f"{item.id} {item.problem}; or go on without it: --skip-errors")
                return

    for result in embedder.stream(replace(request, texts=wanted()), lambda *done: show(n_bytes, *done)):
        index, item = given.popleft()
        if isinstance(result, TextError):
            if not skip:
                raise InputError(f"{item.id} {result.message}")
            tally.skipped[index] = f"{item.id} {result.message}"
            continue
        out.write(Record(index, item.id, item.text, result.prompt_tokens, result.truncated, result.vector))
        tally.add(item.id, result)
    if failure is not None:
        raise failure
    if not (tally.n_texts or tally.n_done_before or tally.skipped):
        raise InputError("there are no texts in the input")


def _check_same(index: int, item: Item, name: str, digest: str) -> None:
    """Refuse to go on with an output that is of other texts. Raises OutputError."""
    if item.id != name:
        raise OutputError(
            f"the inputs are not those of the output: text {index} is {item.id}, it was {name}; write to a new file"
        )
    if item.problem is None and text_digest(item.text) != digest:
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
    if quiet or layout != Layout():
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
