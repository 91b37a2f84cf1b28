"""`q3e-local index list|show|rm|rebuild`: the commands for an index as a whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.again import again
from q3e_local.cli.asking import is_sure
from q3e_local.cli.commands.index_options import Loaded, advice_for, db_option, model_of_index, say_waiting
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import ModelOptions, loading_options, quiet_option
from q3e_local.cli.option_groups import as_one, group
from q3e_local.cli.progress import BYTES_PER_TOKEN, meter
from q3e_local.cli.stopping import between_batches, stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.cli.writing.show import from_here, print_columns, print_facts, print_json, visible
from q3e_local.errors import IndexFileError, InputError, OptionError
from q3e_local.search import places
from q3e_local.wording.counts import counted, size

if TYPE_CHECKING:
    from q3e_local.embedding.text_model import TextModel
    from q3e_local.search.database.records import Facts, IndexSpace
    from q3e_local.search.indexing.rebuild import Rebuilt


def _one_name(name: str | None, option_name: str | None) -> str | None:
    if name is not None and option_name is not None:
        raise OptionError(f"give one name, not {name} and --name {option_name}")
    return option_name if name is None else name


# Give a command the parameters `name` and `db`.
one_index = group(
    click.argument("name", required=False, shell_complete=candidates.index),
    db_option,
    click.option("--name", "option_name", metavar="NAME", shell_complete=candidates.index, help="The same as NAME."),
    as_one(_one_name, "name"),
)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """List the indexes that have names."""
    indexes: list[tuple[str, Facts | str]] = []
    for name in places.names():
        try:
            indexes.append((name, facts_of(places.locate(name=name))))
        except IndexFileError as error:
            indexes.append((name, str(error)))
    for path in places.strays():
        click.echo(f"{visible(str(path))} is left out: its name is none of an index; open it with --db", err=True)
    if as_json:
        for name, facts in indexes:
            print_json({"name": name, **({"error": facts} if isinstance(facts, str) else _fields(facts))})
    elif indexes:
        headings = ["name", "files", "chunks", "size", "changed", "model"]
        print_columns(headings, [_row(name, facts) for name, facts in indexes], right=["size"])
    else:
        click.echo("there is no index yet; make one with: q3e-local index FOLDER", err=True)


def _row(name: str, facts: Facts | str) -> list[object]:
    if isinstance(facts, str):
        return [name, None, None, None, None, facts]
    of_model = f"{facts.space.model}, dim {facts.space.dim}"
    return [name, facts.n_files, facts.n_chunks, size(facts.size_bytes), _date(facts.changed_at), of_model]


@click.command()
@one_index
@click.option("--files", "with_files", is_flag=True, help="Name its files, with their chunks and tokens.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str | None, db: Path | None, with_files: bool, as_json: bool) -> None:
    """Show what an index holds, and what made its vectors."""
    from q3e_local.search.database import Database

    with Database.open(places.existing(db, name)) as database:
        facts = database.facts()
        records = {path: file for path, file in database.files().items() if not file.problem}
    kinds = Counter(record.kind for record in records.values())
    if as_json:
        fields = {**_fields(facts), "kinds": kinds}
        if with_files:
            fields["list"] = [
                {"file": file.path, "kind": file.kind, "chunks": file.n_chunks, "tokens": file.n_tokens}
                for file in records.values()
            ]
        print_json(fields)
        return
    of_kinds = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common())
    lines = {
        "file": f"{facts.path}, {size(facts.size_bytes)}",
        "vectors": str(facts.space),
        "space": facts.space.name or "your own",
        "files": f"{facts.n_files:,}" + (f": {of_kinds}" if of_kinds else ""),
        "chunks": f"{facts.n_chunks:,}, {facts.n_tokens:,} tokens",
        "codes": f"{facts.code_bits} bits",
        "made": _date(facts.created_at),
        "changed": _date(facts.changed_at),
    }
    print_facts(lines)
    if with_files:
        rows = [(file.n_chunks, file.n_tokens, from_here(path)) for path, file in sorted(records.items())]
        print_columns(["chunks", "tokens", "file"], rows)


@click.command()
@one_index
@click.option(
    "--below", "below", multiple=True, metavar="FOLDER",
    help="Only forget the files of this folder, or this file; may be repeated.",
)  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(name: str | None, db: Path | None, below: tuple[str, ...], yes: bool) -> None:
    """Delete an index, or forget some files of it. The files themselves stay."""
    if "" in below:
        raise OptionError(
            "--below is empty; give a folder or file, as the index names it: q3e-local index show --files"
        )
    if name is None and db is None and not below:
        example = f"q3e-local index rm {places.DEFAULT_NAME}"
        raise OptionError(f"say which index to delete, as in: {example}; or what to forget, with --below")
    path = places.existing(db, name, may_be_new=False)
    with stopping_cleanly(), places.alone(path, lambda: say_waiting(path)):
        if below:
            _forget(path, [Path(folder) for folder in below], yes)
        elif is_sure(f"delete {path} {_with_what(path)}?", yes):
            for file in places.files_of(path):
                file.unlink(missing_ok=True)
            click.echo(f"deleted {path}")


def _forget(path: Path, folders: Sequence[Path], yes: bool) -> None:
    from q3e_local.search.database import Database
    from q3e_local.search.indexing.changes import below

    with Database.open(path) as database:
        ordered = sorted(database.files())
        paths = {file for folder in folders for file in below(folder, ordered)}
        if not paths:
            raise InputError(f"{path} has no files below {', '.join(map(str, folders))}")
        if is_sure(f"{path}: forget {counted(len(paths), 'file')}?", yes):
            click.echo(f"forgot {counted(database.remove_files(paths), 'file')}")


def _with_what(path: Path) -> str:
    """What is deleted with an index, for the question. Raises IndexFileError for a file that seems to be no index."""
    try:
        return f"with {counted(facts_of(path).n_chunks, 'chunk')}"
    except IndexFileError as error:
        if path.suffix != places.SUFFIX or not path.is_file():
            raise
        return f"- it cannot be opened: {error} -"


@click.command(cls=ModelCommand)
@one_index
@model_of_index
@loading_options
@engine_options
@quiet_option
@as_one(ModelOptions, "options")
def rebuild(name: str | None, db: Path | None, options: ModelOptions) -> None:
    """Embed all chunks of an index again, with another model or dim.

    The files are not needed. Until it is done the index can be searched as it was. Interrupted, the same command goes
    on. Only a smaller dim of the same model needs no embedding.
    """
    path = places.existing(db, name, may_be_new=False)
    loaded = Loaded(options)
    started = time.perf_counter()
    with stopping_cleanly(), places.alone(path, lambda: say_waiting(path)), advice_for(options.servers), loaded:
        old = facts_of(path)
        if not loaded.is_chosen:
            raise OptionError(
                f"{path} holds {old.space}; say what it is to hold, as in: "
                f"q3e-local index rebuild{places.option_of(path)} -m MODEL, or -d DIM"
            )
        done = _rebuilt(path, old, *loaded(old.space), options.quiet)
    if not options.quiet:
        if old.space.is_same(done.space):
            say("there is nothing to do: these are its vectors already")
        if done.n_chunks:
            how = "cut" if done.was_cut else "embedded again"
            say(f"{counted(done.n_chunks, 'chunk')} {how} in {time.perf_counter() - started:.1f} s")
        say(f"{path} holds {done.space}")
        if not done.is_compact:
            say(f"the room of the old vectors is not free yet: {done.why_not}")


def _rebuilt(path: Path, old: Facts, embedder: TextModel, space: IndexSpace, quiet: bool) -> Rebuilt:
    """Embed the chunks again: shows how far it is, and lets Ctrl-C stop it between two batches."""
    from q3e_local.search.documents import DOCUMENT_TASK
    from q3e_local.search.indexing.rebuild import rebuild as rebuilding

    n_kept, is_at_work = 0, False

    def stored(n_chunks: int, n_total: int) -> None:
        nonlocal n_kept, is_at_work
        n_more, n_kept = n_chunks - n_kept, n_chunks
        n_tokens = old.n_tokens * n_more // old.n_chunks
        if is_at_work:
            show.kept(n_tokens * BYTES_PER_TOKEN, n_tokens, n_more)
        else:  # by an earlier run
            show.skipped(n_tokens * BYTES_PER_TOKEN, n_chunks)
        is_at_work = True
        if n_chunks < n_total:
            batches.check()

    def computed(n_chunks: int, n_tokens: int) -> None:
        nonlocal is_at_work
        is_at_work = True
        show.computed(n_chunks, n_tokens)
        batches.check()

    with between_batches() as batches:
        try:
            with meter("chunk", old.n_chunks, old.n_tokens * BYTES_PER_TOKEN, quiet) as show:
                return rebuilding(path, embedder, space.dim, task=DOCUMENT_TASK, progress=stored, on_batch=computed)
        except KeyboardInterrupt:
            total = counted(old.n_chunks, "chunk")
            raise KeyboardInterrupt(f"{n_kept:,} of {total} are done and kept; go on with: {again()}") from None


def facts_of(path: Path) -> Facts:
    """What an index holds. Raises IndexFileError."""
    from q3e_local.search.database import Database

    with Database.open(path) as database:
        return database.facts()


def _fields(facts: Facts) -> dict[str, Any]:
    return {
        "path": str(facts.path), "model": facts.space.model, "dim": facts.space.dim, "space": facts.space.name,
        "files": facts.n_files, "chunks": facts.n_chunks, "tokens": facts.n_tokens, "size_bytes": facts.size_bytes,
        "created_at": facts.created_at, "changed_at": facts.changed_at,
    }  # fmt: skip


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
