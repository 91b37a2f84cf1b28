"""`q3e-local embed`: inputs to outputs through the library."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli import candidates
from q3e_local.cli.again import again
from q3e_local.cli.commands.embed_run import Run, Tally
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import (
    ModelOptions,
    dimensions_option,
    loading_options,
    max_tokens_option,
    model_option,
    quiet_option,
)
from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.option_groups import as_one
from q3e_local.cli.progress import meter
from q3e_local.cli.stopping import between_batches, stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import Blank, Layout, Source, check, find, layout_options
from q3e_local.cli.texts.survey import say_skipped
from q3e_local.cli.writing.formats import FORMATS, RESUMABLE
from q3e_local.cli.writing.outputs import Output, check_target, choose_format, open_output, settle
from q3e_local.cli.writing.record import About, check_form, kept_names
from q3e_local.embedding.prompts import TASKS, Kind
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError
from q3e_local.space import is_plain
from q3e_local.stores.address import parse
from q3e_local.vectors import DTYPES, Dtype
from q3e_local.wording.counts import counted

if TYPE_CHECKING:
    from q3e_local.cli.commands.embed_store import StoreOutput

_NAMED_AT_MOST = 100  # texts that were skipped
_RECORDS = dict.fromkeys((".csv", ".tsv", ".xlsx", ".xlsm"), "--csv COLUMN")
_RECORDS |= dict.fromkeys((".jsonl", ".ndjson"), "--jsonl FIELD")
_LARGE_BYTES = 64 << 20  # records beyond this take some seconds to check


@click.command(cls=ModelCommand)
@click.argument("names", metavar="[FILE|FOLDER|-]...", nargs=-1, shell_complete=candidates.file)
@click.option("--text", "texts", metavar="TEXT", multiple=True, help="Embed this text; may be repeated.")
@layout_options
@click.option(
    "--keep", metavar="FIELD,...", multiple=True, callback=lambda context, parameter, values: kept_names(values),
    help="Fields of --jsonl or columns of --csv that go out with each embedding.",
)  # fmt: skip
@click.option(
    "--blank", type=click.Choice(["zeros", "skip", "error"]),
    help="A text that is blank: a row of zeros, so that rows keep their numbers; left out; or an error. "
    "[default: error]",
)  # fmt: skip
@click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '*.md'. [default: all]")
@model_option
@dimensions_option
@click.option(
    "--as", "kind", type=click.Choice(["document", "query"]),
    help="A query gets the instruction before it. [default: what the model's name says, else document]",
)  # fmt: skip
@click.option("--task", type=click.Choice(list(TASKS)), help="A named instruction. [default: retrieval]")
@click.option("--instruction", metavar="TEXT", help="An instruction of your own, best in English.")
@max_tokens_option
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
    "--to", metavar="URL|FILE", shell_complete=candidates.file,
    help="Into a vector store, such as lancedb:FOLDER, by the ids of the texts; what is there is passed over. "
    "q3e-local index export --help names the stores.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True,
    help="Continue a .jsonl or .npy output where it stopped; give the same inputs in the same order.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@loading_options
@click.option("--skip-errors", is_flag=True, help="Go on after a text that fails, list it, and exit 3.")
@quiet_option
@as_one(ModelOptions, "options")
def embed(
    names: tuple[str, ...], texts: tuple[str, ...], layout: Layout, blank: Blank | None,
    glob: str | None, kind: Kind | None, task: str | None, instruction: str | None, max_tokens: int | None,
    too_long: str, dtype: Dtype, form: str | None, output: Path | None, to: str | None, resume: bool, force: bool,
    skip_errors: bool, options: ModelOptions,
) -> int:  # fmt: skip
    """Turn texts into embeddings.

    A file is one text, unless --lines, --jsonl or --csv says otherwise; a folder is all files in it; - is stdin,
    which is also read when nothing is named and something is piped in. Of PDF, Word and other documents the text is
    what people read in them. Text that is not UTF-8 is read where its bytes show what it is, and named on stderr.

    \b
      q3e-local embed notes.md report.txt -o vectors.npy
      q3e-local embed --lines questions.txt --as query > queries.jsonl
      q3e-local embed --csv text reviews.xlsx --keep label,date -o reviews.parquet
      q3e-local embed --text "What did we decide?" --as query -d 256
    """
    # With --blank zeros or error a blank line is a blank text; else --lines passes over it.
    layout = replace(layout, blank_lines=layout.lines and blank in ("zeros", "error"))
    address = None if to is None else parse(to)
    if to is not None and address is None:
        if output is not None:
            raise OptionError("-o and --to both name a file; give one of them")
        output = Path(to)
    if address is None:
        form = choose_format(form, output)
        output = settle(output)
        source = find(names, texts, glob, layout, leave_out=output)
        check_form(form, layout.keep, blank == "zeros", dtype)
        check_target(output, form, resume, force)
    else:
        from q3e_local.cli.commands import embed_store  # loads what only a store needs
        from q3e_local.stores.opening import opened

        source = find(names, texts, glob, layout)
        others = {"-o": output, "--format": form, "--resume": resume, "--blank zeros": blank == "zeros"}
        embed_store.check(address, layout, source, others | {f"--dtype {dtype}": dtype != "float32"})
        form = ""
    options.check_dim()

    quiet = options.quiet
    _hint_at_records(source, layout, quiet)
    tally = Tally()
    n_bytes = source.n_bytes()
    tell = (lambda line: None) if quiet else say
    if n_bytes is not None and n_bytes > _LARGE_BYTES and not layout.is_whole:
        tell("checking the records before the model is loaded")
    n_texts = check(source, blank, skip_errors, tell)
    kept_types = source.kept_types() if form == "parquet" else dict.fromkeys(layout.keep)
    with (
        stopping_cleanly(),
        nullcontext() if address is None else opened(address, force) as store,
        options.opened() as embedder,
    ):
        started = time.perf_counter()
        request = EmbedRequest((), kind, task, instruction, options.dim, too_long == "truncate", max_tokens)
        options.check(embedder, request)
        about = About(
            embedder.model, embedder.space(request), embedder.dim(request), dtype, kept_types, blank == "zeros"
        )
        _hint_at_task(request, about, quiet)
        with (
            open_output(output, form, about, resume)
            if store is None or address is None
            else embed_store.filling(store, address, about, max_tokens) as out,
            meter("text", n_texts, n_bytes, quiet, n_there=len(out.done)) as show,
            # Ctrl-C waits for a batch only where the output keeps its vectors and this process computes it.
            between_batches(out.keeps_parts and not options.server) as batches,
        ):
            try:
                run = Run(embedder, request, out, show, batches, tally, dim=about.dim, skip=skip_errors, blank=blank)
                run.go(source, tell)
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt(_what_is_kept(source, output, form, out, error)) from None
            except Exception as error:
                if (address or output) is not None and out.n_written:
                    say(_what_is_kept(source, output, form, out, error))
                raise
        seconds = time.perf_counter() - started
    _report(about, tally, seconds, quiet)
    for line in () if quiet else out.summary:
        say(line)
    return SKIPPED if tally.skipped else DONE


def _what_is_kept(
    source: Source, output: Path | None, form: str, out: Output | StoreOutput, error: BaseException
) -> str:
    """How many texts are kept of a run that ended with this error, and which command continues it."""
    if not isinstance(out, Output):
        return out.kept(error)
    n_kept = len(out.done) + out.n_written
    if not n_kept:
        return ""
    if output is None:
        done = counted(n_kept, "text was", "texts were")
        return f"{done} written; with -o FILE.jsonl or FILE.npy a run can be continued"
    if form not in RESUMABLE:
        return f"nothing is kept of {counted(n_kept, 'text')}: only .jsonl and .npy outputs can be resumed"
    command = again("--resume", without="--force")
    same = ", given the same input" if None in source.paths else ""
    return f"{counted(n_kept, 'text is', 'texts are')} in {output}; go on with: {command}{same}"


def _hint_at_records(source: Source, layout: Layout, quiet: bool) -> None:
    """Say so where a table or JSON Lines is embedded as one text, which is seldom meant."""
    paths = [path for path in source.paths if path is not None and path.suffix.lower() in _RECORDS]
    if paths and layout.is_whole and not quiet:
        say(f"{paths[0]} is embedded as one text; for its records give {_RECORDS[paths[0].suffix.lower()]}")


def _hint_at_task(request: EmbedRequest, about: About, quiet: bool) -> None:
    """Say so where --task changes nothing, because documents get no instruction."""
    if not quiet and request.task is not None and is_plain(about.space):
        say(f"--task {request.task} is for queries: documents get no instruction; for queries add --as query")


def _report(about: About, tally: Tally, seconds: float, quiet: bool) -> None:
    if not quiet:
        before = f" ({tally.n_done_before:,} were there already)" if tally.n_done_before else ""
        cached = f" ({tally.n_cached:,} from the cache)" if tally.n_cached else ""
        n_computed = tally.n_tokens - tally.n_cached_tokens
        others = ", the others at" if tally.n_cached else ":"
        rate = f"{others} {n_computed / seconds:,.0f} tokens/s" if n_computed and seconds else ""
        taken = f" in {seconds:.1f} s{rate}" if tally.n_tokens and seconds else ""
        say(f"{counted(tally.n_texts, 'text')}{before}{cached}, {tally.n_tokens:,} tokens{taken}")
        say(f"model {about.model}, dim {about.dim}, space {about.space}")
        if tally.n_blank:
            say(f"{counted(tally.n_blank, 'blank text')} {'embedded as zeros' if about.has_zeros else 'left out'}")
    if tally.n_cut:
        more = f" and {tally.n_cut - len(tally.cut)} more" if tally.n_cut > len(tally.cut) else ""
        say(f"{counted(tally.n_cut, 'text')} cut to the limit: {', '.join(tally.cut)}{more}")
    say_skipped([tally.skipped[index] for index in sorted(tally.skipped)], _NAMED_AT_MOST)
